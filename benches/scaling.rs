//! How the work grows, as ratios to the first row of every part: `cargo bench --bench scaling`. One operand is grouped and quantized over
//! more tokens, channels and groups; the built-in network runs over more pictures. Medians of alternating rounds.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use candle_core::Tensor;
use igq::input::PictureSet;
use igq::model::{Site, SiteKind};
use igq::progress::Cancel;
use igq::quant::run::fake_quantize_picture;
use igq::quant::{BitWidth, Bounds, Rule, SiteQuantizers, Start, run};
use igq::session::{Options, Session};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 15;

/// What is timed, by name.
type Row<'r> = (String, Box<dyn FnMut() + 'r>);

/// Times the rows of a part in alternating rounds and prints them with a bar each.
fn part(title: &str, rows: &mut [Row<'_>]) {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); rows.len()];
    for round in 0..=ROUNDS {
        for ((_, work), times) in rows.iter_mut().zip(&mut times) {
            let started = Instant::now();
            work();
            if round > 0 {
                times.push(1000.0 * started.elapsed().as_secs_f64());
            }
        }
    }
    let medians: Vec<f64> = times
        .into_iter()
        .map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        })
        .collect();
    let most = medians.iter().copied().fold(0.0, f64::max);
    println!("{title}");
    for ((name, _), ms) in rows.iter().zip(&medians) {
        let bar = "█".repeat((40.0 * ms / most).ceil() as usize);
        println!("  {name:>6} {ms:8.3} ms {:6.2} times  {bar}", ms / medians[0]);
    }
}

/// Grouping and quantizing `(tokens, channels)` with `groups` quantizers, one for each token and group where `by_token`.
fn operand(tokens: usize, channels: usize, groups: usize, by_token: bool) -> Box<dyn FnMut()> {
    let mut random = fastrand::Rng::with_seed(1);
    let spread: Vec<f32> = (0..channels).map(|_| 0.1 + 3.0 * random.f32() * random.f32()).collect();
    let values: Vec<f32> = (0..tokens * channels).map(|i| (random.f32() - 0.5) * spread[i % channels]).collect();
    let bounds: Vec<Bounds> = (1..=groups).map(|g| Bounds::new(-1.5 * g as f32 / groups as f32, 1.5 * g as f32 / groups as f32)).collect();
    let rule = if by_token { Rule::NearestByToken } else { Rule::Nearest(None) };
    let quantizers = SiteQuantizers { bounds, rule };
    let (site, bits) = (Site::in_block(0, SiteKind::Fc1), BitWidth::new(4).unwrap());
    let mut after = vec![0.0; values.len()];
    Box::new(move || {
        fake_quantize_picture(site, &values, &mut after, channels, &quantizers, bits).unwrap();
        black_box(&after);
    })
}

fn main() {
    igq::cpu::run_side_by_side();
    for (name, by_token) in [("igq", false), ("igq-token", true)] {
        let mut rows: Vec<Row<'_>> = [49, 98, 197, 394, 788].map(|n| (n.to_string(), operand(n, 384, 8, by_token))).into();
        part(&format!("{name}: tokens, 384 channels, 8 groups"), &mut rows);
        let mut rows: Vec<Row<'_>> = [96, 192, 384, 768, 1536].map(|c| (c.to_string(), operand(197, c, 8, by_token))).into();
        part(&format!("{name}: channels, 197 tokens, 8 groups"), &mut rows);
        let mut rows: Vec<Row<'_>> = [1, 2, 4, 8, 16, 32].map(|g| (g.to_string(), operand(197, 384, g, by_token))).into();
        part(&format!("{name}: groups, 197 tokens, 384 channels"), &mut rows);
    }
    let options = Options { calibration_images: 8, ..Options::default() };
    let session = Session::open(&options, &|_| ()).unwrap();
    let planned = session.plan(&options.settings).unwrap();
    let preprocess = &session.opened().preprocess;
    let pictures: Vec<Tensor> =
        PictureSet::fashion_test().pictures.iter().take(16).map(|p| preprocess.apply(&p.load().unwrap()).unwrap().tensor).collect();
    let network = session.opened().model.network();
    let mut rows: Vec<Row<'_>> = Vec::new();
    for count in [1, 2, 4, 8, 16] {
        let (batch, planned) = (Tensor::cat(&pictures[..count], 0).unwrap(), &planned);
        let work = move || {
            black_box(run(network, Start::pixels(&batch), planned, &Cancel::default()).unwrap());
        };
        rows.push((count.to_string(), Box::new(work)));
    }
    part("pictures in one batch, built-in model, quantized", &mut rows);
}
