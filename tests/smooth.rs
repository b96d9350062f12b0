//! Smoothing: the same network with other ranges, and refused where it would change what is computed or cannot be done.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use igq::progress::Cancel;
use igq::quant::{Method, Settings, smooth};
use igq::session::{Options, Session};
use igq::studies::evaluate::{Grid, data, evaluate};

fn opened(smooth: bool) -> Session {
    let settings = Settings { smooth, ..Settings::default() };
    Session::open(&Options { calibration_images: 8, settings, ..Options::default() }, &|_| ()).unwrap()
}

#[test]
fn a_smoothed_network_computes_what_it_did_with_ranges_divided_by_the_factors() {
    let (plain, smoothed) = (opened(false), opened(true));
    let logits = |session: &Session| session.base(3).unwrap().float.prediction.logits().to_vec();
    for (a, b) in logits(&plain).iter().zip(logits(&smoothed)) {
        assert!((a - b).abs() < 1e-3, "{a} and {b}");
    }
    assert_ne!(plain.opened().model.digest, smoothed.opened().model.digest);
    assert!(smoothed.opened().model.notes.iter().any(|note| note.contains("12 layers are smoothed")));
    let qkv = "blocks.2.qkv".parse().unwrap();
    let weight = plain.opened().model.network().weight(qkv).unwrap().tensor().unwrap().abs().unwrap().max(0).unwrap();
    let factors = smooth::factors(plain.calibration(), qkv, &weight.to_vec1::<f32>().unwrap()).unwrap();
    let uppers = |session: &Session| session.calibration().sites[&qkv].merged().into_iter().map(|range| range.upper).collect::<Vec<_>>();
    for ((before, after), factor) in uppers(&plain).iter().zip(uppers(&smoothed)).zip(&factors) {
        assert!((before / factor - after).abs() < 1e-3 * before.abs().max(1.0), "{before} / {factor} against {after}");
    }
    let fc2 = "blocks.2.fc2".parse().unwrap();
    assert_eq!(plain.calibration().sites[&fc2].images.len(), smoothed.calibration().sites[&fc2].images.len());
}

#[test]
fn a_session_runs_only_what_it_was_opened_for() {
    let session = opened(false);
    let problem = session.plan(&Settings { smooth: true, ..Settings::default() }).unwrap_err().to_string();
    assert!(problem.contains("smooth"), "{problem}");
}

#[test]
fn rows_over_draws_are_means_with_their_jitter_and_merge_to_the_same() {
    let session = opened(false);
    let set = data(&session, None, Some(24)).unwrap();
    let settings = [Settings::default(), Settings { method: Method::IgqE, ..Settings::default() }];
    let grid = |draws| Grid { settings: &settings, draws };
    let over = |draws, shard| evaluate(&session, &set, grid(draws), shard, &Cancel::default(), &|_| ()).unwrap();
    let (one, three) = (over(1, None), over(3, None));
    assert!(one.rows.iter().all(|row| row.jitter.is_none()) && three.rows.iter().all(|row| row.jitter.unwrap() > 0.0));
    assert_ne!(one.rows[0].kl, three.rows[0].kl);
    let parts = ["1/2", "2/2"].map(|part| over(3, Some(part.parse().unwrap()))).to_vec();
    let merged = igq::studies::evaluate::merge(parts).unwrap();
    for (whole, merged) in three.rows.iter().zip(&merged.rows) {
        assert!((whole.kl - merged.kl).abs() < 1e-12 && (whole.jitter.unwrap() - merged.jitter.unwrap()).abs() < 1e-12);
        assert_eq!(
            (whole.top1, whole.agreement, whole.behind_best.is_some()),
            (merged.top1, merged.agreement, merged.behind_best.is_some())
        );
    }
}
