//! The laws of quantization, on the real pipeline and for all widths.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::Tensor;
use common::built_in;
use igq::analysis::{FloatRun, metrics};
use igq::model::{Site, SiteKind};
use igq::progress::Cancel;
use igq::quant::calibrate::SiteRanges;
use igq::quant::format::Format;
use igq::quant::group::Cost;
use igq::quant::method::Fit;
use igq::quant::ranges::{self, Along};
use igq::quant::run::fake_quantize_picture;
use igq::quant::{
    BitWidth, Bounds, GroupCount, Method, Plan, Rule, Scheme, Settings, SiteQuantizers, Start, UniformQuantizer, calibrate, run,
};
use igq::session::{Request, Session, Stage};

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn widths() -> impl Iterator<Item = BitWidth> {
    (2..=8).map(|b| BitWidth::new(b).unwrap())
}

fn settings(method: Method, bits: u8, groups: u8) -> Settings {
    let bits = BitWidth::new(bits).unwrap();
    let groups = GroupCount::new(groups).unwrap();
    Settings { method, wbits: bits, abits: bits, sbits: bits, groups, row_groups: groups, ..Settings::default() }
}

fn logits(session: &Session, picture: usize, settings: &Settings) -> Vec<f32> {
    session.run(picture, settings, &Cancel::default()).unwrap().quantized.prediction.logits().to_vec()
}

#[test]
fn float_bits_leave_every_logit_bit_for_bit() {
    let session = built_in();
    for method in Method::ALL {
        for picture in [0, 5] {
            let outcome = session.run(picture, &settings(method, 32, 8), &Cancel::default()).unwrap();
            assert_eq!(outcome.quantized.prediction, outcome.base.float.prediction, "{method}");
            assert!(outcome.report.prediction.kl == 0.0 && !outcome.report.prediction.flipped);
        }
    }
}

#[test]
fn one_group_equals_one_quantizer_for_the_layer() {
    let session = built_in();
    for (method, bits) in [Method::IgqMeans, Method::Igq].into_iter().flat_map(|method| widths().map(move |bits| (method, bits))) {
        let outcome = session.run(3, &settings(method, bits.get(), 1), &Cancel::default()).unwrap();
        for (site, run) in &outcome.quantized.sites {
            let calibrated = session.calibration().sites[site].all();
            let n = calibrated.len() as f64;
            let mean = |f: fn(&Bounds) -> f32| (calibrated.iter().map(|b| f64::from(f(b))).sum::<f64>() / n) as f32;
            let bounds = if method == Method::IgqMeans {
                Bounds::new(mean(|b| b.lower), mean(|b| b.upper))
            } else {
                // In kind as `layer`: one static range, inside that of the whole calibration; all of it where a channel has one value.
                let [bounds] = outcome.plan.sites[site].quantizers.as_ref().unwrap().bounds[..] else { panic!("{site}") };
                let whole = calibrated.iter().copied().fold(Bounds::EMPTY, Bounds::union).with_zero();
                assert!(bounds.lower >= whole.lower && bounds.upper <= whole.upper, "{site} {bounds:?} {whole:?}");
                assert!(site.kind != SiteKind::Head || bounds == whole, "{site} {bounds:?} {whole:?}");
                bounds
            };
            let bits = outcome.report.site(*site).unwrap().bits;
            let whole = UniformQuantizer::new(bounds, bits).unwrap();
            for (before, after) in values(&run.before).into_iter().zip(values(&run.after)) {
                assert_eq!(whole.apply(before), after, "{method} {site} at {bits} bits");
            }
        }
    }
}

#[test]
fn as_many_groups_as_channels_on_the_own_picture_equal_one_quantizer_a_channel() {
    let session = built_in();
    let base = session.base(7).unwrap();
    let network = session.opened().model.network();
    let calibration = calibrate(network, std::slice::from_ref(&base.prepared.tensor), &Cancel::default(), |_| ()).unwrap();
    for (site, ranges) in &calibration.sites {
        // Beyond 64 the product's type ends; the fit itself does not.
        let own = ranges.all();
        let grouped = SiteQuantizers { bounds: igq::quant::group::fit(&own, own.len(), Cost::Distance), rule: Rule::Nearest(None) };
        let info = session.opened().model.site(*site).unwrap();
        let to = Fit { ranges, info, groups: GroupCount::new(1).unwrap(), bits: BitWidth::FLOAT, block: 32 };
        let channel = Scheme::Shared(Method::Channel).fit(&to).unwrap();
        let along = Along::of(site.kind);
        for bits in widths() {
            let (a, b) = (grouped.group(own.clone(), along, bits).unwrap(), channel.group(own.clone(), along, bits).unwrap());
            for c in 0..own.len() {
                let (qa, qb) = (&a.quantizers[usize::from(a.assignment[c])], &b.quantizers[usize::from(b.assignment[c])]);
                assert_eq!(qa, qb, "{site} channel {c} at {bits} bits");
            }
        }
    }
}

#[test]
fn error_of_the_whole_network_falls_as_bits_grow() {
    let session = built_in();
    // A block format has bits of its own.
    let widths = |m: &Method| m.spec().format.and_then(Format::bits).is_none();
    for method in Method::ALL.into_iter().filter(|m| *m != Method::Float && !m.is_instance_aware()).filter(widths) {
        let sum = |bits: u8| -> f64 {
            let report = session.run(0, &settings(method, bits, 8), &Cancel::default()).unwrap().report;
            report.sites.iter().map(|s| s.cumulative.mse).sum()
        };
        let sums: Vec<f64> = (2..=8).map(sum).collect();
        assert!(sums.is_sorted_by(|a, b| a > b), "{method}: {sums:?}");
    }
}

#[test]
fn the_error_at_every_site_by_itself_falls_as_its_bits_grow() {
    let session = built_in();
    let base = session.base(0).unwrap();
    for (site, tensor) in &base.float.sites {
        let values = values(tensor);
        let info = session.opened().model.site(*site).unwrap();
        let along = Along::of(site.kind);
        let last = if along.is_rows() { values.len() / info.channels } else { info.channels };
        // Fitted on this picture itself, so that methods which cover their ranges clip nothing.
        let own = vec![ranges::of_picture(along, &values, last)];
        let ranges = SiteRanges { images: own, ..session.calibration().sites[site].clone() };
        let widths_of = |m: &Method| *m != Method::Float && m.spec().format.and_then(Format::bits).is_none();
        for method in Method::ALL.into_iter().filter(widths_of) {
            let error = |bits: BitWidth| -> f64 {
                let fitted = Scheme::Shared(method.at(site.kind)).fit(&Fit {
                    ranges: &ranges,
                    info,
                    groups: GroupCount::new(8).unwrap(),
                    bits,
                    block: 32,
                });
                let fitted = fitted.unwrap();
                let mut quantized = values.clone();
                fake_quantize_picture(*site, &values, &mut quantized, last, &fitted, bits);
                values.iter().zip(&quantized).map(|(x, y)| f64::from(x - y).powi(2)).sum()
            };
            let errors: Vec<f64> = widths().map(error).collect();
            // Means of ranges clip: what is clipped stays, and where the zero point falls moves the bounds by up to half a step.
            let clips = method.is_instance_aware();
            let nothing = 1e-12 * values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let falls = |a: &f64, b: &f64| b < a || *b <= nothing || (clips && *b < 1.3 * a);
            assert!(
                errors.is_sorted_by(falls) && errors[6] <= (if clips { 1.0 } else { 0.5 } * errors[0]).max(nothing),
                "{method} at {site}: {errors:?}"
            );
        }
    }
}

#[test]
fn the_rounding_error_of_igq_is_at_most_half_a_step_and_falls_as_bits_grow() {
    let session = built_in();
    let base = session.base(0).unwrap();
    for (site, tensor) in &base.float.sites {
        let values = values(tensor);
        let info = session.opened().model.site(*site).unwrap();
        let along = Along::of(site.kind);
        let columns = if along.is_rows() { values.len() / info.channels } else { info.channels };
        let own = ranges::of_picture(along, &values, columns);
        let ranges = SiteRanges { images: vec![own.clone()], ..SiteRanges::default() };
        let to = Fit { ranges: &ranges, info, groups: GroupCount::new(8).unwrap(), bits: BitWidth::FLOAT, block: 32 };
        let fitted = Scheme::Shared(Method::IgqMeans).fit(&to).unwrap();
        assert_eq!(fitted.rule, Rule::Nearest(None));
        let mut last = f64::INFINITY;
        for bits in widths() {
            let grouping = fitted.group(own.clone(), along, bits).unwrap();
            let mut error = 0.0;
            for (i, &x) in values.iter().enumerate() {
                let member = if along.is_rows() { i / columns } else { i % columns };
                let quantizer = &grouping.quantizers[usize::from(grouping.assignment[member])];
                // Inside of the codes only rounding is left.
                if quantizer.code(x).1 || quantizer.step_at(x).is_none() {
                    continue;
                }
                let e = x - quantizer.apply(x);
                assert!(e.abs() <= quantizer.scale() * 0.5001, "{site} at {bits} bits: {x} off by {e}");
                error += f64::from(e).powi(2);
            }
            assert!(error < last || error == 0.0, "{site}: {last} then {error} at {bits} bits");
            last = error;
        }
    }
}

#[test]
fn every_width_works_for_every_method_without_nan() {
    let session = built_in();
    for method in Method::ALL {
        for bits in 2..=8 {
            for groups in [1, 8, 64] {
                assert!(logits(&session, 1, &settings(method, bits, groups)).iter().all(|l| l.is_finite()), "{method} {bits} {groups}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let run = || {
        let mut report = built_in().run(4, &Settings::default(), &Cancel::default()).unwrap().report;
        report.seconds = 0.0;
        report
    };
    assert_eq!(run(), run());
}

#[test]
fn a_run_from_the_middle_equals_the_whole_run_bit_for_bit_at_every_site() {
    let session = built_in();
    let network = session.opened().model.network();
    let base = session.base(2).unwrap();
    let whole = session.plan(&Settings::default()).unwrap();
    let logits = |plan: &Plan, first: usize| {
        let cancel = Cancel::default();
        common::flat(&run(network, Start::at(&base.float.trace, first), plan, &cancel).unwrap().logits)
    };
    for info in session.opened().model.sites() {
        let alone = whole.only(info.site);
        assert_eq!(logits(&alone, info.step), logits(&alone, 0), "{}", info.site);
    }
}

#[test]
fn switches_and_patterns_leave_exactly_their_sites_in_float() {
    let session = built_in();
    let mut chosen = Settings::default();
    chosen.toggle_kind(SiteKind::Attn);
    chosen.keep_float = vec!["blocks.*.fc2".parse().unwrap(), "head".parse().unwrap()];
    let report = session.run(0, &chosen, &Cancel::default()).unwrap().report;
    for site in &report.sites {
        let kept = matches!(site.kind, SiteKind::Attn | SiteKind::Fc2 | SiteKind::Head);
        assert_eq!(site.bits.is_float(), kept, "{}", site.site);
        if kept {
            assert!(site.weight.is_none() && site.local.error.mse == 0.0, "{}", site.site);
        }
    }
    // Weights only: every activation passes untouched, and yet the prediction moves.
    let weights_only = Settings { abits: BitWidth::FLOAT, sbits: BitWidth::FLOAT, ..Settings::default() };
    let report = session.run(0, &weights_only, &Cancel::default()).unwrap().report;
    assert!(report.sites.iter().all(|s| s.local.error.mse == 0.0) && report.prediction.kl > 0.0);
}

#[test]
fn only_the_map_from_channel_to_group_depends_on_the_picture() {
    let session = built_in();
    let cancel = Cancel::default();
    let (a, b) = (session.run(0, &Settings::default(), &cancel).unwrap(), session.run(1, &Settings::default(), &cancel).unwrap());
    let site: Site = "blocks.3.fc2".parse().unwrap();
    let (a, b) = (a.report.site(site).unwrap().clone(), b.report.site(site).unwrap().clone());
    let bounds = |s: &igq::analysis::SiteReport| s.quantizers.iter().map(|q| (q.lower, q.upper, q.scale, q.zero_point)).collect::<Vec<_>>();
    assert_eq!(bounds(&a), bounds(&b));
    assert_ne!(a.assignment, b.assignment);
}

#[test]
fn a_cancelled_run_stops_and_leaves_the_session_as_it_was() {
    let session = built_in();
    let before = logits(&session, 0, &Settings::default());
    let cancel = Cancel::default();
    cancel.cancel();
    let stopped = session.run(0, &settings(Method::Igq, 3, 16), &cancel);
    assert!(matches!(stopped.err(), Some(igq::Error::Cancelled)));
    assert_eq!(logits(&session, 0, &Settings::default()), before);
}

#[test]
fn local_error_is_measured_before_against_after_and_cumulative_against_float() {
    let session = built_in();
    let outcome = session.run(0, &Settings::default(), &Cancel::default()).unwrap();
    let float = FloatRun::new(session.opened().model.network(), &outcome.base.prepared.tensor).unwrap();
    for site in &outcome.report.sites {
        let run = &outcome.quantized.sites[&site.site];
        let after = values(&run.after);
        for (told, before) in [(site.local.error, &run.before), (site.cumulative, &float.sites[&site.site])] {
            let computed = metrics::ErrorNumbers::between(&values(before), &after);
            // The sums are in another order.
            assert!((told.mse - computed.mse).abs() <= 1e-12 * computed.mse, "{told:?} {computed:?}");
            assert!((told.cosine - computed.cosine).abs() < 1e-12 && told.max_abs == computed.max_abs, "{told:?} {computed:?}");
        }
        assert_eq!(site.quantizers.iter().map(|q| q.members).sum::<usize>(), site.channels, "{}", site.site);
    }
}

#[test]
fn what_is_taken_over_from_the_run_before_changes_nothing() {
    let (session, cancel) = (built_in(), Cancel::default());
    let first = Settings::default();
    let mut later = first.clone();
    later.set_own("blocks.3.fc1".parse().unwrap(), |own| own.abits = BitWidth::new(3).ok());
    let plans = [&first, &later].map(|settings| session.plan(settings).unwrap());
    let step = session.opened().model.site("blocks.3.fc1".parse().unwrap()).unwrap().step;
    assert_eq!(plans[1].first_change(&plans[0]), Some(step));
    assert_eq!(plans[1].first_change(&session.plan(&later).unwrap()), None);
    session.run(1, &first, &cancel).unwrap();
    let after = session.run(1, &later, &cancel).unwrap();
    session.run(0, &first, &cancel).unwrap(); // Another picture: nothing to take over.
    let mut fresh = session.run(1, &later, &cancel).unwrap().report;
    fresh.seconds = after.report.seconds;
    assert_eq!(after.report, fresh);
    // The same settings again, and what was run ahead of them.
    assert_eq!(session.run(1, &later, &cancel).unwrap().quantized.prediction, after.quantized.prediction);
}

#[test]
fn a_prediction_that_was_made_ahead_is_that_of_the_run() {
    let (session, cancel) = (built_in(), Cancel::default());
    let request = |settings: Settings| Request { id: 1, settings, picture: 0, compare: None };
    session.look_ahead(&request(Settings::default()), &cancel).unwrap();
    let fewer = Settings { abits: BitWidth::new(3).unwrap(), ..Settings::default() };
    let (mut told, mut measured) = (Vec::new(), None);
    let ended = session.answer(&request(fewer.clone()), &cancel, &mut |stage| match stage {
        Stage::Predicted(predicted) => told.push(predicted.prediction.clone()),
        Stage::Measured(snapshot, _) => {
            measured = Some(snapshot.report.prediction.clone());
            cancel.cancel();
        }
        _ => {}
    });
    assert!(ended.is_err() && told.len() == 1);
    assert_eq!(Some(&told[0]), measured.as_ref());
}
