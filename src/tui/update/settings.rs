//! Changes of the settings that come from a result: the counts of the budget, a row of the comparison, a suggestion.

use crate::engine::command::Settings;
use crate::tui::app::App;
use crate::tui::keys::Action;
use crate::tui::studies::base;

/// Counts of single sites would hide a change of the count that all share.
pub(super) fn share_counts(app: &mut App) {
    let shared = app.settings.with_counts([]);
    if shared != app.settings {
        app.settings = shared;
        app.say("all sites share one count again; u undoes it");
    }
}

/// The counts that the budget gives.
pub(super) fn apply_counts(app: &mut App) {
    app.budget.settle();
    match &app.budget.solved {
        Some(solved) if solved.base == base(&app.settings) => {
            app.settings = solved.apply(&app.settings);
            app.say("counts applied; u undoes it");
        }
        _ => app.say("there are no counts for these settings yet"),
    }
}

/// Method and bit-widths of the selected row of the comparison.
pub(super) fn take_row(app: &mut App) {
    let row = app.studies.comparison.as_ref().and_then(|c| c.rows.get(app.row));
    let Some(row) = row.map(|r| r.settings.clone()) else { return app.say("there are no rows yet") };
    let Settings { method, wbits, abits, sbits, .. } = row;
    app.settings = Settings { method, wbits, abits, sbits, ..app.settings.clone() };
}

/// The suggestion that was found.
pub(super) fn take_suggestion(app: &mut App) {
    match app.studies.suggestion.take() {
        Some(found) => {
            app.settings = found.settings.clone();
            app.say("suggestion applied; u undoes it");
        }
        None => app.say("there is no suggestion; F looks for one, z in Budget for mixed precision"),
    }
}

/// Bits or groups of the selected site alone, one step; says what they are now.
pub(super) fn of_site(app: &mut App, action: Action) {
    let weighted = app.site_report().is_some_and(|report| report.weight.is_some());
    let (site, settings) = (app.site, &mut app.settings);
    if !settings.quantizes(site) {
        return app.say(format!("{site} is left unquantized; f takes it back"));
    }
    match action {
        Action::SiteBits(up) => {
            let (abits, wbits) = (settings.activation_bits(site).step(up), settings.weight_bits(site).step(up));
            settings.set_own(site, |own| (own.abits, own.wbits) = (Some(abits), if weighted { Some(wbits) } else { own.wbits }));
            let weight = if weighted { format!(", its weight {wbits}") } else { String::new() };
            app.say(format!("{site} alone: activations {abits} bits{weight}"));
        }
        Action::SiteGroups(up) => {
            let groups = settings.groups(site).step(up);
            settings.set_own(site, |own| own.groups = Some(groups));
            app.say(format!("{site} alone: {groups} groups"));
        }
        _ => {}
    }
}
