//! Perturbations, allocations, sensitivities and suggestions, on the real model with few pictures.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::sync::Mutex;

use common::built_in;
use igq::analysis::{Divergence, findings};
use igq::input::PictureSet;
use igq::model::SiteKind;
use igq::progress::Cancel;
use igq::quant::{BitWidth, GroupCount, Method, Settings, bops};
use igq::session::{Options, Request, Session, Stage};
use igq::studies::counts::Budget;
use igq::studies::counts::Table;
use igq::studies::evaluate::evaluate;
use igq::studies::mixed;
use igq::studies::perturbation::{self, Estimate, Perturbation, Search, StudyUpdate};
use igq::studies::repair::{TARGET, repair};
use igq::studies::sensitivity::{self, Effort};
use igq::studies::suggest::{Aim, restore_set};

fn counts(list: &[u8]) -> Vec<GroupCount> {
    list.iter().map(|&g| GroupCount::new(g).unwrap()).collect()
}

fn bits(b: u8) -> BitWidth {
    BitWidth::new(b).unwrap()
}

fn all_at(method: Method, b: u8) -> Settings {
    Settings { method, wbits: bits(b), abits: bits(b), sbits: bits(b), ..Settings::default() }
}

fn perturb(session: &Session, estimate: Estimate, candidates: &[u8]) -> Perturbation {
    perturbation::perturb(session, &Settings::default(), &Search::new(estimate, &counts(candidates)), &[], &Cancel::default(), &|_| ())
        .unwrap()
}

fn pictures(limit: usize) -> PictureSet {
    let mut set = PictureSet::fashion_test();
    set.pictures.truncate(limit);
    set
}

#[test]
fn an_exact_perturbation_is_the_kl_of_a_whole_run_with_one_site() {
    let session = built_in();
    let found = perturb(&session, Estimate::Alone, &[2, 8]);
    let reference = session.reference(&Cancel::default()).unwrap();
    assert_eq!((found.sites.len(), found.images), (50, 8));
    for index in [0, 5, 30, 49] {
        let one = &found.sites[index];
        for (at, count) in found.candidates.iter().enumerate() {
            let settings = Settings { groups: *count, row_groups: *count, wbits: BitWidth::FLOAT, ..Settings::default() };
            let plan = session.plan(&settings).unwrap().only(one.site);
            let whole = reference.effect_of(session.opened().model.network(), &plan, &Cancel::default()).unwrap();
            assert_eq!(whole.kl, one.omega[at], "{} at {count}", one.site);
        }
    }
}

#[test]
fn the_fast_estimate_orders_the_sites_much_as_the_exact_one() {
    let session = built_in();
    let (exact, fast) = (perturb(&session, Estimate::Alone, &[4, 8]), perturb(&session, Estimate::Fisher, &[4, 8]));
    assert!(fast.sites.iter().flat_map(|s| &s.omega).all(|o| o.is_finite() && *o >= 0.0));
    for (count, rho) in fast.rank_correlation(&exact) {
        assert!(rho.unwrap() > 0.6, "{rho:?} at {count}");
    }
}

#[test]
fn an_allocation_keeps_its_budget_and_is_never_predicted_worse_than_uniform() {
    let session = built_in();
    let sites = session.opened().model.sites();
    let settings = Settings::default();
    let found = perturb(&session, Estimate::Fisher, &[2, 4, 6, 8, 12, 16]);
    let table = Table::new(sites, &settings, &found);
    for groups in counts(&[4, 8, 12, 16]) {
        let budget = Budget::Uniform(groups).resolve(&session, &settings);
        assert_eq!(table.uniform(groups).unwrap().bops, budget);
        let best = table.solve(budget).unwrap();
        assert!(best.bops <= budget && best.predicted <= table.uniform(groups).unwrap().predicted + 1e-12);
        // What the table says it costs is what the settings cost.
        assert_eq!(bops::total(sites, &settings.with_counts(best.counts())), best.bops);
        for share in &best.sites {
            assert!(share.more.is_none_or(|m| m.bops > 0 && m.groups > share.groups));
        }
    }
    assert!(table.solve(table.span().0 - 1).is_err());
    let frontier = table.frontier(6).unwrap();
    assert!(frontier.is_sorted_by(|a, b| a.bops <= b.bops && a.predicted >= b.predicted));
}

#[test]
fn a_stopped_sweep_keeps_what_it_found_and_does_not_compute_it_again() {
    let session = built_in();
    let (cancel, heard) = (Cancel::default(), Mutex::new(Vec::new()));
    let settings = Settings::default();
    let stopped = perturbation::perturb(&session, &settings, &Search::new(Estimate::Alone, &counts(&[4])), &[], &cancel, &|told| {
        if let StudyUpdate::Found(one, _) = told {
            heard.lock().unwrap().push(one);
            cancel.cancel();
        }
    });
    assert!(matches!(stopped, Err(igq::Error::Cancelled)));
    let heard = heard.into_inner().unwrap();
    assert!(!heard.is_empty() && heard.len() < 50);
    let again = Mutex::new(0);
    let whole =
        perturbation::perturb(&session, &settings, &Search::new(Estimate::Alone, &counts(&[4])), &heard, &Cancel::default(), &|told| {
            *again.lock().unwrap() += usize::from(matches!(told, StudyUpdate::Found(..)));
        });
    assert_eq!(heard.len() + again.into_inner().unwrap(), 50);
    assert_eq!(whole.unwrap(), perturb(&session, Estimate::Alone, &[4]));
}

#[test]
fn cached_and_fresh_results_are_equal_and_a_poisoned_entry_is_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let open = |cache: Option<&std::path::Path>| {
        let options = Options { calibration_images: 2, cache: cache.map(Into::into), ..Options::default() };
        Session::open(&options, &|_| ()).unwrap()
    };
    let fresh = open(None);
    let expected = perturb(&fresh, Estimate::Fisher, &[4]);
    let first = open(Some(folder.path()));
    assert_eq!(perturb(&first, Estimate::Fisher, &[4]), expected);
    let entries = || fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(entries().len(), 2, "{:?}", entries());
    let computed = |session: &Session| {
        let count = Mutex::new(0);
        let told = |told: StudyUpdate| *count.lock().unwrap() += usize::from(matches!(told, StudyUpdate::Found(..)));
        let found = perturbation::perturb(
            session,
            &Settings::default(),
            &Search::new(Estimate::Fisher, &counts(&[4])),
            &[],
            &Cancel::default(),
            &told,
        );
        assert_eq!(found.unwrap(), expected);
        count.into_inner().unwrap()
    };
    let second = open(Some(folder.path()));
    assert_eq!(second.calibration(), fresh.calibration());
    assert_eq!(computed(&second), 0);
    // One entry loses its end, the other is no text at all.
    for turn in 0..2 {
        for (index, entry) in entries().into_iter().enumerate() {
            let whole = fs::read(&entry).unwrap();
            fs::write(entry, if index == turn { &whole[..whole.len() / 2] } else { &[0xff; 64] }).unwrap();
        }
        let third = open(Some(folder.path()));
        assert_eq!(third.calibration(), fresh.calibration());
        assert_eq!(computed(&third), 50);
    }
    // The entries were replaced by good ones.
    assert_eq!(computed(&open(Some(folder.path()))), 0);
}

#[test]
fn a_fast_sensitivity_measures_on_all_pictures_what_loses_most() {
    let session = built_in();
    let (cancel, settings) = (Cancel::default(), Settings { kinds: [SiteKind::Fc2, SiteKind::Proj].into(), ..Settings::default() });
    let pictures = sensitivity::pictures(&session, None, None, &cancel).unwrap();
    let report =
        |fast| sensitivity::report(&session, &settings, &pictures, &[], Effort { fast, ..Effort::default() }, &cancel, &|_| ()).unwrap();
    let (fast, whole) = (report(true), report(false));
    assert_eq!((fast.whole, fast.sites.len()), (whole.whole, 12));
    let (all, few): (Vec<_>, Vec<_>) = fast.sites.iter().partition(|site| site.images == whole.images);
    assert!(all.len() == 5 && few.iter().all(|site| site.images == 2), "{all:?} {few:?}");
    for site in all {
        let known = whole.sites.iter().find(|known| known.site == site.site).unwrap();
        assert_eq!((site.only, site.without), (known.only, known.without));
    }
    assert!(fast.verdict.contains("first 2 images"), "{}", fast.verdict);
}

#[test]
fn sensitivity_says_what_real_runs_say() {
    let session = built_in();
    let cancel = Cancel::default();
    let settings = Settings::default();
    let pictures = sensitivity::pictures(&session, None, None, &cancel).unwrap();
    let by = [sensitivity::By::Bits, sensitivity::By::Groups];
    let report = sensitivity::report(&session, &settings, &pictures, &by, Effort::default(), &cancel, &|_| ()).unwrap();
    let network = session.opened().model.network();
    let of = |settings: &Settings| -> Divergence { pictures.1.effect_of(network, &session.plan(settings).unwrap(), &cancel).unwrap() };
    assert_eq!(report.whole, of(&settings));
    assert_eq!(report.weights_only, of(&Settings { abits: BitWidth::FLOAT, sbits: BitWidth::FLOAT, ..settings.clone() }));
    assert_eq!(report.activations_only, of(&Settings { wbits: BitWidth::FLOAT, ..settings.clone() }));
    let mut softmax = Settings { wbits: BitWidth::FLOAT, abits: BitWidth::FLOAT, ..settings.clone() };
    softmax.kinds = SiteKind::ALL.into();
    assert_eq!(report.softmax_only, of(&softmax));
    assert_eq!(report.sites.len(), 50);
    assert!(report.sites.is_sorted_by(|a, b| a.only.kl >= b.only.kl));
    assert!((report.sum_only - report.sites.iter().map(|s| s.only.kl).sum::<f64>()).abs() < 1e-12);
    let worst = &report.sites[0];
    let mut without = settings.clone();
    without.toggle_float(worst.site);
    assert_eq!(worst.without, of(&without));
    assert_eq!((worst.by_bits.len(), worst.by_groups.len()), (7, 10));
    assert_eq!(worst.by_bits[2].kl, worst.only.kl);
    assert!(report.verdict.contains(&worst.site.to_string()));
    // Where the interval of a gain holds zero the site has no rank by it.
    assert!(
        report
            .sites
            .iter()
            .all(|s| s.rank_gain.is_none() == s.is_noise() && s.gain_interval.is_some_and(|[low, high]| low <= s.gain && s.gain <= high))
    );
    let shifted =
        sensitivity::report(&session, &settings, &pictures, &[], Effort { shifts: 2, ..Effort::default() }, &cancel, &|_| ()).unwrap();
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.5;
    assert!(shifted.whole.kl != report.whole.kl && near(shifted.whole.kl, report.whole.kl), "{} {}", shifted.whole.kl, report.whole.kl);
    assert!(shifted.verdict.contains("2 draws"), "{}", shifted.verdict);
}

#[test]
fn mixed_precision_keeps_its_budget_and_beats_uniform_bits_by_runs() {
    let session = built_in();
    let mut set = PictureSet::fashion_test();
    set.pictures.truncate(96);
    let (settings, cancel) = (Settings::default(), Cancel::default());
    let found = mixed::mixed(&session, &settings, &[bits(4)], Some(&set), &cancel, &|_| ()).unwrap();
    let one = &found.mixed[0];
    let sites = session.opened().model.sites();
    assert_eq!(one.budget, bops::total(sites, &settings));
    assert!(bops::total(sites, &one.settings) <= one.budget && one.measured[0].bops == bops::total(sites, &one.settings));
    let (_, low, _) = one.gain.unwrap();
    assert!(low > 0.0 && one.verdict.starts_with("Better than W4/A4"), "{}", one.verdict);
    let row = &evaluate(&session, &set, std::slice::from_ref(&one.settings).into(), None, &cancel, &|_| ()).unwrap().rows[0];
    assert_eq!((row.kl, row.agreement), (one.measured[0].kl, one.measured[0].agreement), "what is said is what a run gives");
    // The first and the last layer keep the bits of the preset.
    assert_eq!(one.settings.activation_bits("head".parse().unwrap()), bits(8));
    let suggestion = one.suggestion();
    assert!(suggestion.reached && suggestion.settings == one.settings && suggestion.after.kl < suggestion.before.kl);
    let refused = mixed::mixed(&session, &Settings { method: Method::NvFp4, ..settings }, &[bits(4)], Some(&set), &cancel, &|_| ());
    assert!(refused.unwrap_err().to_string().contains("fixed bits"));
}

#[test]
fn a_lost_prediction_comes_back_by_the_cheapest_change_and_every_one_was_run() {
    let session = built_in();
    let cancel = Cancel::default();
    let settings = all_at(Method::Igq, 2);
    let lost = |picture: &usize| session.run(*picture, &settings, &cancel).unwrap().report.prediction.flipped;
    let picture = (0..50).find(lost).expect("two bits flip something");
    let found = repair(&session, &settings, picture, TARGET, &cancel, &|_| ()).unwrap();
    assert!(found.reached && found.before.agreement == 0.0 && found.alternatives.len() == 3, "{}", found.text);
    assert_eq!((&found.settings, found.after), (&found.alternatives[0].settings, found.alternatives[0].after));
    assert!(found.alternatives.is_sorted_by_key(|a| a.after.bops), "the cheapest first");
    for alternative in &found.alternatives {
        let verified = session.run(picture, &alternative.settings, &cancel).unwrap().report;
        assert!(!verified.prediction.flipped && verified.prediction.kl == alternative.after.kl && verified.prediction.kl <= TARGET);
        assert_eq!((Some(verified.prediction.margin_kept), verified.bops.total), (alternative.after.margin, alternative.after.bops));
    }
    // A class that is kept needs nothing only if its probability is kept too.
    let kept = repair(&session, &found.settings, picture, TARGET, &cancel, &|_| ()).unwrap();
    assert!(kept.reached && kept.alternatives.is_empty() && kept.settings == found.settings, "{}", kept.text);
    let collapsed = repair(&session, &found.settings, picture, found.after.kl / 2.0, &cancel, &|_| ()).unwrap();
    assert!(
        collapsed.before.agreement == 100.0 && (collapsed.after.kl <= found.after.kl / 2.0 || !collapsed.reached),
        "{}",
        collapsed.text
    );
    let impossible = repair(&session, &settings, picture, -1.0, &cancel, &|_| ()).unwrap();
    assert!(!impossible.reached && impossible.text.contains("comes nearest"), "{}", impossible.text);
}

#[test]
fn more_bits_for_some_sites_restore_agreement_for_less_than_more_bits_for_all() {
    let session = built_in();
    let (set, cancel) = (pictures(64), Cancel::default());
    let settings = Settings { wbits: bits(4), ..all_at(Method::IgqE, 3) };
    for fast in [false, true] {
        let (found, best) = restore_set(&session, &settings, &set, (Aim::Kl(0.005), fast), &cancel, &|_| ()).unwrap();
        assert!(found.before.kl > 0.005 && found.reached && found.after.kl <= 0.005);
        assert!(found.before.bops < found.after.bops && found.after.bops < best.bops);
        assert_eq!((&found.settings, found.after), (&found.alternatives[0].settings, found.alternatives[0].after));
        assert!(found.alternatives.is_sorted_by_key(|a| a.after.bops) && found.alternatives.iter().all(|a| a.after.kl <= 0.005));
        // The settings of the suggestion are what was measured.
        let again = evaluate(&session, &set, std::slice::from_ref(&found.settings).into(), None, &Cancel::default(), &|_| ()).unwrap();
        assert_eq!(again.rows[0].kl, found.after.kl);
        assert_eq!(bops::total(session.opened().model.sites(), &found.settings), found.after.bops);
    }
}

/// On 128 pictures of the built-in set: percentiles and expected error clip far less than means, and token scales beat a scale for each token.
#[test]
fn rules_that_clip_less_beat_means_and_no_baseline_beats_token_scales() {
    let session = Session::open(&Options::default(), &|_| ()).unwrap();
    let methods = [Method::IgqE, Method::Igq, Method::IgqMeans, Method::LayerDynamic, Method::IgqToken, Method::PerToken];
    let grid: Vec<Settings> = [6, 8].into_iter().flat_map(|b| methods.map(|m| all_at(m, b))).collect();
    let evaluation = evaluate(&session, &pictures(128), grid.as_slice().into(), None, &Cancel::default(), &|_| ()).unwrap();
    for of_bits in evaluation.rows.chunks(methods.len()) {
        let [aware, ours, means, dynamic, token, per_token] = of_bits else { unreachable!() };
        for better in [aware, ours] {
            assert!(better.kl < means.kl / 4.0, "{} {} against {}", better.method, better.kl, means.kl);
            assert!(better.kl <= dynamic.kl, "{} {} against {}", better.method, better.kl, dynamic.kl);
        }
        assert!(token.kl < per_token.kl, "{} against {}", token.kl, per_token.kl);
        assert!(token.effective_bits.1 > ours.effective_bits.1 && token.bops > ours.bops);
    }
    // Paired with the best row: exactly one row has nothing to be compared with, and the interval holds the difference of the means.
    let best = evaluation.rows.iter().map(|row| row.kl).fold(f64::INFINITY, f64::min);
    assert_eq!(evaluation.rows.iter().filter(|row| row.behind_best.is_none()).count(), 1);
    for row in &evaluation.rows {
        let Some((mean, low, high)) = row.behind_best else { continue };
        assert!((mean - (row.kl - best)).abs() < 1e-12 && low <= mean && mean <= high, "{row:?}");
    }
}

#[test]
fn own_settings_of_sites_reach_plan_report_and_cost() {
    let session = built_in();
    let site = "blocks.2.fc1".parse().unwrap();
    let mut settings = Settings::default();
    settings.set_own(site, |own| (own.groups, own.abits, own.wbits) = (Some(counts(&[16])[0]), Some(bits(6)), Some(bits(8))));
    let report = session.run(0, &settings, &Cancel::default()).unwrap().report;
    let one = report.site(site).unwrap();
    assert_eq!((one.groups, one.bits, one.weight.unwrap().bits), (16, bits(6), bits(8)));
    assert!(report.bops.total > bops::total(session.opened().model.sites(), &Settings::default()));
    assert_eq!(settings.with_counts([]).overrides.len(), 1);
    settings.set_own(site, |own| (own.groups, own.abits, own.wbits) = (None, None, None));
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.uniform(counts(&[4])[0]).row_groups, counts(&[4])[0]);
}

/// The verdict's numbers are those of runs that anybody can make: only weights, only activations, one site in float.
#[test]
fn what_is_to_blame_is_what_runs_say() {
    let session = built_in();
    let cancel = Cancel::default();
    let settings = all_at(Method::Igq, 3);
    let kl = |settings: &Settings| session.run(2, settings, &cancel).unwrap().report.prediction.kl;
    let request = Request { id: 1, settings: settings.clone(), picture: 2, compare: None };
    let (mut report, mut blame) = (None, None);
    let mut only = Vec::new();
    let told = session.answer(&request, &cancel, &mut |stage| match stage {
        Stage::Measured(snapshot, _) => report = Some(snapshot.report.clone()),
        Stage::Swept(found, ..) => only.extend(found),
        Stage::Blamed(found) => blame = Some(found),
        _ => {}
    });
    told.unwrap();
    let (mut report, blame) = (report.unwrap(), blame.unwrap());
    let float = BitWidth::FLOAT;
    assert_eq!(blame.weights, kl(&Settings { abits: float, sbits: float, ..settings.clone() }));
    assert_eq!(blame.activations, kl(&Settings { wbits: float, ..settings.clone() }));
    assert_eq!(blame.softmax, kl(&Settings { wbits: float, abits: float, ..settings.clone() }));
    only.sort_by(|a, b| b.1.kl.total_cmp(&a.1.kl));
    assert_eq!(blame.repaired.iter().map(|r| r.site).collect::<Vec<_>>(), only[..5].iter().map(|(site, _)| *site).collect::<Vec<_>>());
    for repaired in &blame.repaired {
        let mut without = settings.clone();
        without.toggle_float(repaired.site);
        assert_eq!(repaired.kl, kl(&without), "{}", repaired.site);
    }
    // What the sentence names is the best of the five, with its own number, or it says that none helps.
    let best = *blame.repaired.iter().min_by(|a, b| a.kl.total_cmp(&b.kl)).unwrap();
    report.blame = Some(blame);
    let verdict = findings::verdict_after_sweep(&report);
    let named = format!("{} in float: {} (", best.site, igq::number::short(best.kl));
    let none = "None of the 5 costliest sites in float lowers it.";
    assert!(verdict.contains(if best.kl < report.prediction.kl { &named } else { none }), "{verdict}");
    assert_eq!(findings::costliest(&report), Some(best.site));
}
