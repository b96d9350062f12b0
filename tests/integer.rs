//! The integer arithmetic against the fake-quantized one: the same codes, so the same logits up to the rounding of floats.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::built_in;
use igq::model::SiteKind;
use igq::progress::Cancel;
use igq::quant::integer::run_integer;
use igq::quant::{BitWidth, GroupCount, Method, Settings, SoftmaxShape, Start, run};

fn settings(method: Method, bits: u8, groups: u8) -> Settings {
    let bits = BitWidth::new(bits).unwrap();
    let groups = GroupCount::new(groups).unwrap();
    Settings { method, wbits: bits, abits: bits, sbits: bits, groups, row_groups: groups, ..Settings::default() }
}

/// Largest difference of the logits of the two arithmetics, as a share of their spread, over the first pictures.
fn difference(settings: &Settings, pictures: usize) -> f32 {
    let session = built_in();
    let (network, cancel) = (session.opened().model.network(), Cancel::default());
    let plan = session.plan(settings).unwrap();
    let mut worst = 0.0_f32;
    for index in 0..pictures {
        let pixels = session.base(index).unwrap().prepared.tensor.clone();
        let flat = |output: igq::model::Output| output.logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let fake = flat(run(network, Start::pixels(&pixels), &plan, &cancel).unwrap());
        let (output, _) = run_integer(network, Start::pixels(&pixels), &plan, &cancel).unwrap();
        let spread = fake.iter().copied().fold(f32::MIN, f32::max) - fake.iter().copied().fold(f32::MAX, f32::min);
        let off = flat(output).iter().zip(&fake).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst = worst.max(off / spread);
    }
    worst
}

#[test]
fn logits_are_those_of_the_fake_quantized_run() {
    for method in Method::ALL {
        for bits in [4, 8] {
            // A value that rounding moves to the next code moves the logits: rare, and less than a step of one value.
            let off = difference(&settings(method, bits, 8), 4);
            assert!(off < 2e-2, "{method} at {bits} bits: off by {off}");
        }
    }
}

#[test]
fn what_is_made_of_floats_is_named() {
    let session = built_in();
    let (network, cancel) = (session.opened().model.network(), Cancel::default());
    let pixels = session.base(0).unwrap().prepared.tensor.clone();
    let told = |settings: &Settings| run_integer(network, Start::pixels(&pixels), &session.plan(settings).unwrap(), &cancel).unwrap().1;
    let all = told(&settings(Method::Igq, 7, 8));
    // Every layer and every product of a softmax with values; queries by keys are grouped along the sum.
    assert_eq!(all.integer.len(), 2 + 6 * 5, "{all:?}");
    assert!(all.float.keys().all(|site| site.kind == SiteKind::Q) && all.float.len() == 6, "{all:?}");
    let log = told(&Settings { softmax: SoftmaxShape::Log2, ..settings(Method::Igq, 7, 8) });
    assert!(log.float.iter().any(|(site, why)| site.kind == SiteKind::Attn && why.contains("no codes")), "{log:?}");
    let weights = told(&Settings { wbits: BitWidth::FLOAT, ..settings(Method::Igq, 7, 8) });
    assert!(weights.float.iter().any(|(site, why)| site.kind == SiteKind::Fc1 && why.contains("weight")), "{weights:?}");
    assert!(told(&settings(Method::Float, 8, 8)).integer.is_empty());
}

#[test]
fn a_log_softmax_and_a_float_part_give_the_logits_too() {
    for other in [
        Settings { softmax: SoftmaxShape::Log2, ..settings(Method::Igq, 6, 8) },
        Settings { wbits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
        Settings { abits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
        Settings { sbits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
    ] {
        let off = difference(&other, 2);
        assert!(off < 2e-2, "{}: off by {off}", other.describe());
    }
}
