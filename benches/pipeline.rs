//! Times of the parts for the built-in model, and the ratio of the quantized to the float forward pass, all in one run.

#![allow(missing_docs, clippy::unwrap_used)] // A benchmark: criterion's macro makes the public items.

use std::hint::black_box;
use std::time::Instant;

use candle_core::Tensor;
use criterion::{Criterion, criterion_group, criterion_main};
use igq::input::PictureSet;
use igq::model::{Identity, forward};
use igq::progress::Cancel;
use igq::quant::{FitCache, Start, calibrate, plan, run};
use igq::session::{Options, Session};
use igq::studies::counts::Budget;
use igq::studies::counts::Table;
use igq::studies::perturbation::{self, Estimate, Search};

fn pipeline(criterion: &mut Criterion) {
    igq::cpu::run_side_by_side();
    let options = Options::default();
    let session = Session::open(&options, &|_| ()).unwrap();
    let (model, preprocess) = (&session.opened().model, &session.opened().preprocess);
    let batch = |set: PictureSet| {
        let tensors: Vec<Tensor> = set.pictures.iter().take(32).map(|p| preprocess.apply(&p.load().unwrap()).unwrap().tensor).collect();
        Tensor::cat(&tensors, 0).unwrap()
    };
    let (pictures, calibration_batch) = (batch(PictureSet::fashion_test()), batch(PictureSet::fashion_calibration()));
    let one = pictures.narrow(0, 0, 1).unwrap();
    let (network, settings, cancel) = (model.network(), &options.settings, Cancel::default());
    let planned = session.plan(settings).unwrap();
    let float = |x: &Tensor| forward(network, x, &mut Identity).unwrap();
    let quantized = |x: &Tensor| run(network, Start::pixels(x), &planned, &cancel).unwrap();

    let mut group = criterion.benchmark_group("fashion-vit");
    group.sample_size(20);
    group.bench_function("float forward, 1 picture", |b| b.iter(|| float(black_box(&one))));
    group.bench_function("quantized forward, 1 picture", |b| b.iter(|| quantized(black_box(&one))));
    group.bench_function("float forward, 32 pictures", |b| b.iter(|| float(black_box(&pictures))));
    group.bench_function("quantized forward, 32 pictures", |b| b.iter(|| quantized(black_box(&pictures))));
    let batches = std::slice::from_ref(&calibration_batch);
    group.bench_function("calibration, 32 pictures", |b| b.iter(|| calibrate(network, batches, &cancel, |_| ()).unwrap()));
    group.bench_function("fit and weights, all sites", |b| {
        b.iter(|| plan(model, session.calibration(), settings, &FitCache::default()).unwrap());
    });
    group.finish();

    // The ratio, alternating so that a noisy neighbour meets both.
    let (mut float_time, mut quantized_time) = (0.0, 0.0);
    for _ in 0..30 {
        let started = Instant::now();
        black_box(float(&pictures));
        float_time += started.elapsed().as_secs_f64();
        let started = Instant::now();
        black_box(quantized(&pictures));
        quantized_time += started.elapsed().as_secs_f64();
    }
    println!("ratio quantized/float, 32 pictures, 30 alternating rounds: {:.2}", quantized_time / float_time);

    // All perturbations for an allocation (50 sites by 10 counts, quantizers fitted), against one float forward of the same 32 pictures.
    let candidates = perturbation::default_candidates();
    for estimate in [Estimate::Fisher, Estimate::Alone] {
        let session = Session::open(&options, &|_| ()).unwrap();
        let started = Instant::now();
        let found = perturbation::perturb(&session, settings, &Search::new(estimate, &candidates), &[], &cancel, &|_| ()).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let table = Table::new(model.sites(), settings, &found);
        let bound = Budget::Uniform(settings.groups).resolve(&session, settings);
        let started = Instant::now();
        black_box(table.solve(bound).unwrap());
        let solve = started.elapsed().as_secs_f64();
        let forward = float_time / 30.0;
        println!(
            "perturbations by {}: {seconds:.2} s, {:.0} float forwards; solving: {:.1} ms, {:.3} float forwards",
            estimate.name(),
            seconds / forward,
            1000.0 * solve,
            solve / forward
        );
    }
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
