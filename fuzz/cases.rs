//! What is done with the bytes of a fuzz target, the same under libFuzzer (`fuzz_targets/`) and in `cargo test` (`tests/fuzz.rs`): the way of a
//! user's file through the library, and what must hold of all that is accepted. A panic is a finding.

use std::cell::OnceCell;
use std::path::Path;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use igq::cli::RunArgs;
use igq::input::preprocess::{Interpolation, Resize};
use igq::input::{Picture, Preprocess, Raster, picture as pictures};
use igq::model::{Config, Model, Recorder, forward};
use igq::progress::Cancel;
use igq::quant::{Settings, files};
use igq::session::cache::Store;
use igq::session::loaded::preprocessing;
use igq::session::{LoadedModel, Options, Session};
use igq::studies::perturbation::SitePerturbation;
use serde_json::Value;
use tempfile::TempDir;

/// What is done with the bytes of a target.
pub type Case = fn(&[u8]);

/// Every target by name.
pub const CASES: [(&str, Case); 8] = [
    ("checkpoint", checkpoint),
    ("configuration", configuration),
    ("preprocessor", preprocessor),
    ("picture", picture),
    ("quantizers", quantizers),
    ("settings", settings),
    ("cache", cache),
    ("key_stream", super::keys::key_stream),
];

/// Tiny checkpoints of seven layouts: config.json, a zero byte, model.safetensors.
pub const TINY: [&[u8]; 7] = [
    include_bytes!("seeds/checkpoint/timm_vit"),
    include_bytes!("seeds/checkpoint/timm_dinov2_reg4"),
    include_bytes!("seeds/checkpoint/timm_distilled"),
    include_bytes!("seeds/checkpoint/timm_swin"),
    include_bytes!("seeds/checkpoint/hf_vit"),
    include_bytes!("seeds/checkpoint/hf_dinov2"),
    include_bytes!("seeds/checkpoint/hf_swin"),
];

/// What a run may take: a target is about what is read, not about how much a machine has.
const MEMORY: u64 = 8 << 20;

/// A folder of this thread, in memory where there is such a place.
fn with_folder<T>(work: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        let memory = Path::new("/dev/shm");
        let new = || if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        work(folder.get_or_init(|| new().expect("a temporary folder")).path())
    })
}

/// The part before the first zero byte and the part behind it.
pub fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    (&data[..at], data.get(at + 1..).unwrap_or_default())
}

/// Writes a folder with a checkpoint.
fn write_model(folder: &Path, config: &[u8], weights: &[u8]) {
    std::fs::write(folder.join("config.json"), config).expect("a written file");
    std::fs::write(folder.join("model.safetensors"), weights).expect("a written file");
}

/// Values that differ from one another and lie in a picture's range after normalisation.
fn pixels(config: &Config) -> Tensor {
    let (height, width) = config.image_size();
    let shape = (1, config.in_chans(), height, width);
    let values: Vec<f32> = (0..shape.1 * height * width).map(|at| (at % 17) as f32 / 8.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor of pixels")
}

/// A model that was accepted runs, and meets exactly the sites that it announces, in the shapes that it announces.
fn holds_model(folder: &Path) {
    let Ok(model) = Model::fetched(folder.to_str().expect("a plain path"), true, Some(MEMORY), &|_| ()) else { return };
    assert!(!model.describe().is_empty() && !model.sites().is_empty());
    let announced = model.network().sites();
    let mut met = Vec::new();
    let mut recorder = Recorder(|site, x: &Tensor| {
        met.push((site, x.dims().to_vec()));
        Ok(())
    });
    // Weights that overflow are refused by name; everything else runs.
    match forward(model.network(), &pixels(&model.config), &mut recorder) {
        Err(e) => assert!(e.to_string().contains("NaN or infinite"), "an accepted model does not run: {e}"),
        Ok(output) => {
            assert_eq!(output.logits.dims(), [1, 1, model.config.classes()]);
            assert_eq!(met.len(), announced.len());
            for ((site, dims), info) in met.iter().zip(&announced) {
                assert_eq!(*site, info.site);
                if site.kind.is_softmax() {
                    assert_eq!(dims[1] * dims[2], info.channels, "{site}: {dims:?}");
                } else {
                    assert_eq!(dims[1..], [info.tokens, info.channels], "{site}");
                }
            }
        }
    }
    if let Ok(preprocess) = preprocessing(&model) {
        assert_eq!((preprocess.size, preprocess.channels), (model.config.image_size(), model.config.in_chans()));
        holds_preprocess(&preprocess);
    }
}

/// config.json, a zero byte, model.safetensors.
pub fn checkpoint(data: &[u8]) {
    let (config, weights) = halves(data);
    with_folder(|folder| {
        write_model(folder, config, weights);
        holds_model(folder);
    });
}

/// One byte that chooses a tiny checkpoint, then its config.json.
pub fn configuration(data: &[u8]) {
    let Some((choice, config)) = data.split_first() else { return };
    let (_, weights) = halves(TINY[usize::from(*choice) % TINY.len()]);
    with_folder(|folder| {
        write_model(folder, config, weights);
        holds_model(folder);
    });
}

/// A picture without a file.
fn raster(width: usize, height: usize, channels: usize) -> Picture {
    let data = (0..width * height * channels).map(|at| (at * 37 % 256) as u8).collect();
    Picture { name: "picture".into(), source: "picture".into(), raster: Raster { width, height, channels, data }, label: None }
}

/// A picture that was prepared is finite and of the shape that the model takes.
fn holds_prepared(preprocess: &Preprocess, picture: &Picture) {
    // Sizes that take seconds and are not refused are left out.
    let (height, width) = match preprocess.resize {
        Resize::None => (1, 1),
        Resize::Shortest(edge) | Resize::Longest(edge) => (edge, edge),
        Resize::Exact(height, width)
        | Resize::Cover(height, width)
        | Resize::Fit(height, width)
        | Resize::Within(height, width)
        | Resize::Between(height, width)
        | Resize::Corner(height, width)
        | Resize::Canvas(height, width, _)
        | Resize::Rounded(height, width, _) => (height, width),
    };
    let area = |height: usize, width: usize| height.saturating_mul(width);
    if (1 << 20..1 << 32).contains(&area(height, width)) || area(preprocess.size.0, preprocess.size.1) > 1 << 20 {
        return;
    }
    if let Ok(prepared) = preprocess.apply(picture) {
        let (height, width) = preprocess.size;
        assert_eq!(prepared.tensor.dims(), [1, preprocess.channels, height, width]);
        assert_eq!((prepared.view.height, prepared.view.width), (height, width));
        let values = prepared.tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("values");
        assert!(values.iter().all(|v| v.is_finite()), "not finite after {}", preprocess.describe());
    }
}

fn holds_preprocess(preprocess: &Preprocess) {
    assert_eq!((preprocess.mean.len(), preprocess.std.len()), (preprocess.channels, preprocess.channels));
    for (width, height, channels) in [(5, 7, 1), (9, 4, 3), (1, 1, 3)] {
        holds_prepared(preprocess, &raster(width, height, channels));
    }
}

/// One byte that chooses channels, size and file, then preprocessor_config.json or the pretrained_cfg of a config.json.
pub fn preprocessor(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let Ok(value) = serde_json::from_slice::<Value>(text) else { return };
    let channels = [1, 3, 4][usize::from(choice & 3) % 3];
    let size = [(8, 8), (6, 10)][usize::from(choice >> 2 & 1)];
    let config = serde_json::json!({ "pretrained_cfg": &value });
    let (config, own) = if choice & 8 == 0 { (None, Some(&value)) } else { (Some(&config), None) };
    if let Ok(preprocess) = Preprocess::from_config(config, own, channels, size) {
        assert_eq!((preprocess.size, preprocess.channels), (size, channels));
        holds_preprocess(&preprocess);
    }
}

/// The bytes of a picture file.
pub fn picture(data: &[u8]) {
    // What is large and not refused takes seconds; what is larger than igq's bound must be refused before it is decoded.
    let claimed = dimensions(data);
    if claimed.is_some_and(|(width, height)| (1 << 20..=pictures::MAX_PIXELS).contains(&(u64::from(width) * u64::from(height)))) {
        return;
    }
    let Ok(raster) = pictures::decode("fuzzed", data) else { return };
    assert!(raster.width > 0 && raster.height > 0 && [1, 3].contains(&raster.channels));
    assert_eq!(raster.data.len(), raster.width * raster.height * raster.channels);
    let picture = Picture { name: "fuzzed".into(), source: "fuzzed".into(), raster, label: None };
    let filter = [Interpolation::Bicubic, Interpolation::Nearest, Interpolation::Box][data.len() % 3];
    for (channels, resize) in [(3, Resize::Shortest(9)), (1, Resize::Fit(8, 8)), (3, Resize::Longest(5)), (1, Resize::Exact(7, 9))] {
        let preprocess = Preprocess {
            size: (8, 8),
            channels,
            resize,
            interpolation: filter,
            rescale: 1.0 / 255.0,
            mean: vec![0.5; channels],
            std: vec![0.5; channels],
            fill: vec![0; channels],
            on_tensors: channels == 3,
            from: "the target".into(),
        };
        holds_prepared(&preprocess, &picture);
    }
}

/// Columns and rows that the head of a picture claims.
fn dimensions(data: &[u8]) -> Option<(u32, u32)> {
    image::ImageReader::new(std::io::Cursor::new(data)).with_guessed_format().ok()?.into_dimensions().ok()
}

/// A session on the first of the tiny checkpoints.
pub fn session() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| Session::open(&tiny_options(), &|_| ()).expect("a session on a tiny model"))
}

/// Options that name the first of the tiny checkpoints, in a folder that stays as long as the process.
fn tiny_options() -> Options {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (config, weights) = halves(TINY[0]);
        write_model(folder.path(), config, weights);
        folder
    });
    Options { model: folder.path().to_str().expect("a plain path").into(), calibration_images: 2, ..Options::default() }
}

/// A file for `--quantizers`.
pub fn quantizers(data: &[u8]) {
    with_folder(|folder| {
        let path = folder.join("quantizers.safetensors");
        std::fs::write(&path, data).expect("a written file");
        let model = &session().opened().model;
        let Ok(read) = files::read(&path, model) else { return };
        let Ok(loaded) = LoadedModel::new(&Options { quantizers: Some(path.clone()), ..tiny_options() }) else { return };
        let settings = loaded.settings.clone();
        let opened = Session::calibrated(loaded, &Cancel::default(), &|_| ()).expect("a session without a calibration");
        // Sites that the file leaves out end the run with an error; a report holds finite numbers.
        if let Ok(outcome) = opened.run(0, &settings, &Cancel::default()) {
            assert!(!outcome.report.prediction.kl.is_nan(), "KL is not a number");
        }
        // What is written again is read again.
        if let Ok(plan) = opened.plan(&settings) {
            let copy = folder.join("copy.safetensors");
            if files::write(&copy, &plan, &settings).is_ok() {
                let again = files::read(&copy, model).expect("what igq wrote");
                for (site, planned) in &plan.sites {
                    assert_eq!(planned.quantizers.as_ref(), again.sites.get(site), "{site}");
                    assert!(planned.quantizers.is_none() || planned.quantizers.as_ref() == read.sites.get(site), "{site}");
                }
                assert_eq!(again.settings, settings);
            }
        }
    });
}

/// A file for `--settings-file`.
pub fn settings(data: &[u8]) {
    with_folder(|folder| {
        let path = folder.join("settings.json");
        let read = |bytes: &[u8]| -> igq::Result<Settings> {
            std::fs::write(&path, bytes).expect("a written file");
            RunArgs { settings_file: Some(path.clone()), ..RunArgs::default() }.settings()
        };
        let Ok(settings) = read(data) else { return };
        assert!(!settings.describe().is_empty());
        let text = serde_json::to_vec(&settings).expect("settings as JSON");
        assert_eq!(read(&text).expect("what igq wrote"), settings);
        let report = serde_json::to_vec(&serde_json::json!({ "settings": settings })).expect("a report as JSON");
        assert_eq!(read(&report).expect("what igq wrote"), settings);
        // Settings that fit run.
        let outcome = session().run(0, &settings, &Cancel::default()).expect("accepted settings run");
        assert!(!outcome.report.prediction.kl.is_nan(), "KL is not a number");
    });
}

/// A cache entry: the first byte says whether the digest fits the rest, and what the entry is.
pub fn cache(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let model = &session().opened().model;
    let pixels = [pixels(&model.config)];
    let calibration = igq::quant::calibrate(model.network(), &pixels, &Cancel::default(), |_| ()).expect("a calibration");
    let kept: Vec<SitePerturbation> =
        model.sites().iter().map(|info| SitePerturbation { site: info.site, omega: vec![0.25, 1e-300] }).collect();
    with_folder(|folder| {
        let folder = folder.join("cache");
        std::fs::remove_dir_all(&folder).ok();
        let store = Store::new(&folder, &model.digest, &pixels).expect("a store");
        let of_calibration = choice & 1 == 0;
        if of_calibration {
            store.keep_calibration(&calibration);
            assert_eq!(store.calibration(model.sites()).as_ref(), Some(&calibration), "what was kept");
        } else {
            store.keep("perturbation", &1, &kept);
            assert_eq!(store.get::<Vec<SitePerturbation>>("perturbation", &1).as_ref(), Some(&kept), "what was kept");
        }
        let entry = std::fs::read_dir(&folder).expect("a folder").next().expect("an entry").expect("an entry").path();
        let mut bytes = std::fs::read(&entry).expect("an entry");
        let (before, whole) = (bytes.clone(), choice & 2 != 0);
        if choice & 4 != 0 {
            // Damage: a place and a byte, again and again.
            for place in rest.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([place[0], place[1]])) % bytes.len();
                bytes[at] = place[2];
            }
        } else {
            bytes.truncate(32);
            bytes.extend_from_slice(rest);
        }
        if whole {
            let digest = blake3::hash(&bytes[32..]);
            bytes[..32].copy_from_slice(digest.as_bytes());
        }
        std::fs::write(&entry, &bytes).expect("a written entry");
        if of_calibration {
            let found = store.calibration(model.sites());
            assert!(whole || found.is_none() || (bytes == before && found == Some(calibration)), "a damaged entry was used");
            for info in model.sites().iter().filter(|_| found.is_some()) {
                let ranges = &found.as_ref().expect("a calibration").sites[&info.site];
                assert!(ranges.images.iter().all(|image| image.len() == info.channels), "{}", info.site);
            }
        } else {
            let found = store.get::<Vec<SitePerturbation>>("perturbation", &1);
            assert!(whole || found.is_none() || (bytes == before && found == Some(kept)), "a damaged entry was used");
        }
    });
}
