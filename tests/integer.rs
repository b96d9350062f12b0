//! The integer arithmetic against the fake-quantized one: the same codes, so the same logits up to the rounding of floats.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::built_in;
use igq::model::{Output, Site, SiteKind};
use igq::progress::Cancel;
use igq::quant::run::run_integer;
use igq::quant::{BitWidth, GroupCount, Method, Plan, Preset, Settings, SoftmaxShape, Start, WeightScales, run};
use igq::session::Session;

fn settings(method: Method, bits: u8, groups: u8) -> Settings {
    let bits = BitWidth::new(bits).unwrap();
    let groups = GroupCount::new(groups).unwrap();
    Settings { method, wbits: bits, abits: bits, sbits: bits, groups, row_groups: groups, preset: Preset::All, ..Settings::default() }
}

/// Largest difference of the logits of the two arithmetics, as a share of their spread.
fn difference(session: &Session, plan: &Plan, picture: usize) -> f32 {
    let (network, cancel) = (session.opened().model.network(), Cancel::default());
    let pixels = session.base(picture).unwrap().prepared.tensor.clone();
    let flat = |output: Output| output.logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let fake = flat(run(network, Start::pixels(&pixels), plan, &cancel).unwrap());
    let (output, _) = run_integer(network, Start::pixels(&pixels), plan, &cancel).unwrap();
    let spread = fake.iter().copied().fold(f32::MIN, f32::max) - fake.iter().copied().fold(f32::MAX, f32::min);
    flat(output).iter().zip(&fake).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / spread
}

#[test]
fn one_product_of_codes_is_that_of_dequantized_floats() {
    let session = built_in();
    let sites = session.opened().model.sites();
    // Scales of this picture's blocks have no codes on one scale for a product, which `what_is_made_of_floats_is_named` looks at.
    for method in Method::ALL.into_iter().filter(|method| method.spec().format.is_none()) {
        for bits in [3, 7, 8] {
            let whole = session.plan(&settings(method, bits, 8)).unwrap();
            for info in sites.iter().filter(|info| info.layer.is_some() || info.site.kind == SiteKind::Attn) {
                // The operands of one product: both arithmetics are given the same values, so the same codes.
                let mut plan = whole.only(info.site);
                if info.site.kind == SiteKind::Attn {
                    plan = plan.with(whole.sites[&Site { kind: SiteKind::V, ..info.site }].clone());
                }
                let off = difference(&session, &plan, 2);
                assert!(off < 1e-4, "{method} at {bits} bits, {}: off by {off}", info.site);
            }
        }
    }
}

#[test]
fn a_whole_run_says_what_the_fake_quantized_one_says() {
    let session = built_in();
    for method in [Method::Layer, Method::Channel, Method::Igq, Method::IgqE] {
        for picture in 0..4 {
            // A value on the edge between two codes may fall to either side, and the next layer sees it.
            let off = difference(&session, &session.plan(&settings(method, 8, 8)).unwrap(), picture);
            assert!(off < 1e-2, "{method}: off by {off}");
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
    // Without VNNI, the kernel cannot be given two operands of 8 bits: that is said, and nothing overflows.
    let eight = told(&Settings { preset: Preset::FirstLast8, ..settings(Method::Igq, 7, 8) });
    let head = eight.float.get(&Site::outside(SiteKind::Head)).copied().unwrap_or("");
    assert!(eight.integer.contains(&Site::outside(SiteKind::Head)) || head.contains("no VNNI"), "{eight:?}");
    let blocks = told(&Settings { weight_scales: WeightScales::Block(32), ..settings(Method::Igq, 7, 8) });
    assert!(blocks.float.iter().any(|(site, why)| site.kind == SiteKind::Fc1 && why.contains("more than one scale")), "{blocks:?}");
    let token = told(&settings(Method::IgqToken, 7, 8));
    assert!(token.integer.is_empty() && token.float.len() >= 2 + 6 * 5, "{token:?}");
    let log = told(&Settings { softmax: SoftmaxShape::Log2, ..settings(Method::Igq, 7, 8) });
    assert!(log.float.iter().any(|(site, why)| site.kind == SiteKind::Attn && why.contains("no codes")), "{log:?}");
    let weights = told(&Settings { wbits: BitWidth::FLOAT, ..settings(Method::Igq, 7, 8) });
    assert!(weights.float.iter().any(|(site, why)| site.kind == SiteKind::Fc1 && why.contains("weight")), "{weights:?}");
    assert!(told(&settings(Method::Float, 8, 8)).integer.is_empty());
}

#[test]
fn a_log_softmax_and_a_float_part_give_the_logits_too() {
    let session = built_in();
    for other in [
        Settings { softmax: SoftmaxShape::Log2, ..settings(Method::Igq, 6, 8) },
        Settings { wbits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
        Settings { abits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
        Settings { sbits: BitWidth::FLOAT, ..settings(Method::Igq, 6, 8) },
    ] {
        let off = difference(&session, &session.plan(&other).unwrap(), 1);
        assert!(off < 0.1, "{}: off by {off}", other.describe());
    }
}
