//! Changes of settings that may help, to be tried by runs.

use crate::error::Result;
use crate::model::{SiteKind, SitePattern};
use crate::progress::Cancel;
use crate::quant::{BitWidth, GroupCount, Method, Settings, SiteOverride, WeightScales};
use crate::session::Session;

/// The KL of one picture under settings.
///
/// # Errors
/// When the settings do not fit, the picture cannot be read, or `cancel` was called.
pub fn kl(session: &Session, settings: &Settings, picture: usize, cancel: &Cancel) -> Result<f64> {
    let base = session.base(picture)?;
    let tried = session.predict(&base, &session.plan_until(settings, cancel)?, cancel)?;
    Ok(tried.against(&base.float.prediction).kl)
}

/// A change that is tried: its name, and the settings with it.
pub type Trial = (String, Settings);

/// Raises the bits of a pattern's sites, weights included, to at least `bits`; nothing where none is below.
#[must_use]
pub fn raised(session: &Session, settings: &Settings, pattern: &SitePattern, bits: BitWidth) -> Option<Settings> {
    let sites = session.opened().model.sites().iter().filter(|info| pattern.matches(info.site));
    let mut below = false;
    for info in sites {
        below |= settings.activation_bits(info.site) < bits || (info.layer.is_some() && settings.weight_bits(info.site) < bits);
    }
    let own = SiteOverride { sites: pattern.clone(), wbits: Some(bits), abits: Some(bits), groups: None };
    let mut changed = settings.clone();
    changed.overrides.push(own);
    below.then_some(changed)
}

/// What may be changed as a whole: scales for tokens, finer scales of weights, more groups, more bits for a kind or for all.
#[must_use]
pub fn wholes(session: &Session, settings: &Settings) -> Vec<Trial> {
    let with = |name: &str, change: &dyn Fn(&mut Settings)| {
        let mut changed = settings.clone();
        change(&mut changed);
        (name.to_string(), changed)
    };
    let to = |bits: u8, old: BitWidth| BitWidth::new(bits).map_or(old, |bits| bits.max(old));
    let mut trials = vec![
        with("a scale for every token and group (igq-token)", &|s| s.method = Method::IgqToken),
        with("weights in blocks of 32", &|s| s.weight_scales = WeightScales::Block(32)),
        with("igq-token and weights in blocks of 32", &|s| (s.method, s.weight_scales) = (Method::IgqToken, WeightScales::Block(32))),
        with("error-aware groups (igq-e)", &|s| s.method = Method::IgqE),
    ];
    if let Ok(sixteen) = GroupCount::new(16) {
        trials.push(with("16 groups", &|s| (s.groups, s.row_groups) = (sixteen.max(s.groups), sixteen.max(s.row_groups))));
    }
    for bits in [5, 6] {
        let (w, a, s) = (to(bits, settings.wbits), to(bits, settings.abits), to(bits, settings.sbits));
        let all = move |x: &mut Settings| (x.method, x.wbits, x.abits, x.sbits) = (Method::IgqToken, w, a, s);
        trials.push(with(&format!("igq-token at {bits} bits"), &all));
    }
    for bits in [5, 6, 8] {
        let (w, a, s) = (to(bits, settings.wbits), to(bits, settings.abits), to(bits, settings.sbits));
        trials.push(with(&format!("weights at {bits} bits"), &|x| x.wbits = w));
        trials.push(with(&format!("activations at {bits} bits"), &|x| (x.abits, x.sbits) = (a, s)));
        trials.push(with(&format!("everything at {bits} bits"), &|x| (x.wbits, x.abits, x.sbits) = (w, a, s)));
    }
    let present = |kind: &SiteKind| session.opened().model.sites().iter().any(|info| info.site.kind == *kind);
    for kind in SiteKind::ALL.into_iter().filter(present) {
        for bits in [6, 8].into_iter().filter_map(|bits| BitWidth::new(bits).ok()) {
            let changed = raised(session, settings, &SitePattern::of_kind(kind), bits);
            trials.extend(changed.map(|changed| (format!("all {kind} at {bits} bits"), changed)));
        }
    }
    trials.retain(|(_, changed)| changed != settings && (settings.method.uses_groups() || changed.groups == settings.groups));
    trials
}

/// The grid that one would try by hand on a single picture: methods, group counts, bits and scales of weights together, and more bits for a kind
/// under another method.
#[must_use]
pub fn grid(session: &Session, settings: &Settings) -> Vec<Trial> {
    if !settings.method.uses_groups() {
        return Vec::new();
    }
    let methods = [settings.method, Method::IgqE, Method::IgqToken];
    let counts = [4, 8, 12, 16].into_iter().filter_map(|count| GroupCount::new(count).ok());
    let counts: Vec<(GroupCount, GroupCount)> =
        std::iter::once((settings.groups, settings.row_groups)).chain(counts.map(|count| (count, count))).collect();
    let widths: Vec<BitWidth> = [2, 5, 6, 8].into_iter().filter_map(|bits| BitWidth::new(bits).ok()).collect();
    let mut trials: Vec<Trial> = Vec::new();
    let mut add = |names: Vec<String>, changed: Settings| {
        if changed != *settings && !trials.iter().any(|(_, known)| *known == changed) {
            trials.push((names.join(", "), changed));
        }
    };
    for method in methods {
        let of_method = (method != settings.method).then(|| method.name().to_string());
        for &bits in &widths {
            let raise = |old: BitWidth| old.max(bits);
            let base = Settings {
                method,
                wbits: raise(settings.wbits),
                abits: raise(settings.abits),
                sbits: raise(settings.sbits),
                ..settings.clone()
            };
            let of_bits = ((base.wbits, base.abits, base.sbits) != (settings.wbits, settings.abits, settings.sbits))
                .then(|| format!("everything at {bits} bits"));
            for &(groups, row_groups) in &counts {
                let of_groups = ((groups, row_groups) != (settings.groups, settings.row_groups)).then(|| format!("{groups} groups"));
                for weight_scales in [settings.weight_scales, WeightScales::Block(32)] {
                    let of_scales = (weight_scales != settings.weight_scales).then(|| "weights in blocks of 32".to_string());
                    let names = [&of_method, &of_bits, &of_groups, &of_scales].into_iter().flatten().cloned().collect();
                    add(names, Settings { groups, row_groups, weight_scales, ..base.clone() });
                }
            }
        }
        let Ok(six) = BitWidth::new(6) else { continue };
        for kind in SiteKind::ALL {
            let base = Settings { method, ..settings.clone() };
            if let Some(changed) = raised(session, &base, &SitePattern::of_kind(kind), six) {
                add(of_method.clone().into_iter().chain([format!("all {kind} at 6 bits")]).collect(), changed);
            }
        }
    }
    trials
}
