//! What a user waits for, as ratios in one run: float, fake-quantized, integers, told and measured. `cargo bench --bench speed -- MODEL...`
//! (default: the built-in model); every figure is the median of alternating rounds, so that a noisy neighbour meets all of them.
//!
//! Where IGQ_PYTHON names a Python with onnxruntime and MODEL.onnx lies beside the folder MODEL, ONNX Runtime runs in the same rounds
//! (benches/reference.py, which exports it too); where IGQ_TORCH names a Python with timm and torch and MODEL's folder is named as a timm
//! architecture, PyTorch does.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use igq::cpu;
use igq::model::{Identity, forward};
use igq::progress::Cancel;
use igq::quant::run::run_integer;
use igq::quant::{BitWidth, Method, Settings, Start, run};
use igq::session::{Options, Request, Session, Stage};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 15;

/// Median of times in milliseconds.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// ONNX Runtime in a process of its own, which runs the model once for every line.
struct Reference {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Reference {
    /// ONNX Runtime's; `None` where there is no Python or no file.
    fn onnx(model: Option<&str>) -> Option<Self> {
        let (python, file) = (std::env::var("IGQ_PYTHON").ok()?, format!("{}.onnx", model?));
        if Path::new(&file).exists() { Self::start(&python, &[&file]) } else { None }
    }

    /// PyTorch's; `None` where there is no Python or no such architecture.
    fn torch(model: Option<&str>) -> Option<Self> {
        let (python, name) = (std::env::var("IGQ_TORCH").ok()?, Path::new(model?).file_name()?.to_str()?);
        Self::start(&python, &["torch", name])
    }

    fn start(python: &str, args: &[&str]) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reference.py");
        let mut command = Command::new(python);
        let mut process = command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(process.stdout.take()?).lines();
        lines.next()?.ok()?; // It is ready.
        Some(Self { process, lines })
    }

    fn milliseconds(&mut self) -> f64 {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.lines.next().unwrap().unwrap().parse().unwrap()
    }
}

fn milliseconds<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    black_box(work());
    1000.0 * started.elapsed().as_secs_f64()
}

fn measure(model: Option<&str>) {
    let mut options = Options { calibration_images: 8, ..Options::default() };
    if let Some(model) = model {
        options.model = model.into();
    }
    let opening = Instant::now();
    let session = Session::open(&options, &|_| ()).unwrap();
    let opening = opening.elapsed().as_secs_f64();
    let (network, settings, cancel) = (session.opened().model.network(), &options.settings, Cancel::default());
    let first = milliseconds(|| session.plan(settings).unwrap());
    let base = session.base(0).unwrap();
    let pixels = &base.prepared.tensor;
    let planned = session.plan(settings).unwrap();
    let mut references = [Reference::onnx(model), Reference::torch(model)];
    let mut others: [Vec<f64>; 2] = Default::default();
    let mut times: [Vec<f64>; 7] = Default::default();
    let eight = BitWidth::new(8).unwrap();
    let whole = Settings { method: Method::Layer, wbits: eight, abits: eight, sbits: eight, ..settings.clone() };
    let grouped = Settings { wbits: eight, abits: eight, sbits: eight, ..settings.clone() };
    let plans = [session.plan(&whole).unwrap(), session.plan(&grouped).unwrap()];
    for round in 0..ROUNDS {
        times[0].push(milliseconds(|| cpu::in_pool(|| forward(network, pixels, &mut Identity).unwrap())));
        times[1].push(milliseconds(|| cpu::in_pool(|| run(network, Start::pixels(pixels), &planned, &cancel).unwrap())));
        for (reference, times) in references.iter_mut().zip(&mut others).filter_map(|(r, times)| Some((r.as_mut()?, times))) {
            times.push(reference.milliseconds());
            // Its threads go on spinning for a while.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        for (plan, times) in plans.iter().zip(&mut times[5..7]) {
            times.push(milliseconds(|| cpu::in_pool(|| run_integer(network, Start::pixels(pixels), plan, &cancel).unwrap())));
        }
        // Other bits every time: what is the same as in the run before would be taken over from it.
        let other = Settings { abits: BitWidth::new(3 + (round % 4) as u8).unwrap(), ..settings.clone() };
        session.plan(&other).unwrap();
        let request = Request { id: round as u64, settings: other, picture: 0, compare: None };
        let started = Instant::now();
        let since = || 1000.0 * started.elapsed().as_secs_f64();
        let stop = Cancel::default();
        let (mut told, mut measured) = (0.0, 0.0);
        let ended = session.answer(&request, &stop, &mut |stage| match stage {
            Stage::Predicted(_) => told = since(),
            Stage::Measured(..) => {
                measured = since();
                stop.cancel();
            }
            Stage::Lens(_) | Stage::Timed(_) | Stage::Swept(..) | Stage::Blamed(_) => {}
        });
        assert!(ended.is_err() || measured > 0.0);
        times[2].push(told);
        times[3].push(measured);
        // A key that changes the bits of every activation: bounds are known, plans are not.
        let mut other = settings.clone();
        other.abits = BitWidth::new(3 + (round % 4) as u8).unwrap();
        times[4].push(milliseconds(|| session.plan(&other).unwrap()));
    }
    let float = median(&mut times[0]);
    let mut beside = String::new();
    for (name, times) in ["ONNX Runtime", "PyTorch"].into_iter().zip(&mut others).filter(|(_, times)| !times.is_empty()) {
        beside += &format!(" ({:.2} of {name})", float / median(times));
    }
    let [float, quantized, told, measured, key, layer, igq] = times.map(|mut times| median(&mut times));
    println!(
        "{}: open {opening:.1} s, first plan {first:.0} ms | float {float:.1} ms{beside}, quantized {quantized:.1} ({:.2} of float), \
         integer W8A8 per-tensor {layer:.1} ({:.2} of float), {} groups {igq:.1} ({:.2}), told {told:.1} ({:.2} of quantized), measured {measured:.1} ({:.2}), plan of a key {key:.2} ms",
        session.opened().model.name,
        quantized / float,
        layer / float,
        settings.groups,
        igq / float,
        told / quantized,
        measured / quantized,
    );
}

fn main() {
    cpu::run_side_by_side();
    let models: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if models.is_empty() {
        measure(None);
    }
    for model in &models {
        measure((model != "built-in").then_some(model));
    }
}
