//! A session: one model, one calibration, a set of pictures; runs any settings on any of the pictures. Synchronous; the worker and the
//! headless commands both stand on it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::Tensor;

use super::cache::Store;
use super::event::{AttentionMap, PictureView, Progress, SessionInfo, Snapshot};
use super::options::Options;
use crate::analysis::report::{BopsReport, CalibrationReport, ClassName, ModelReport, PictureReport, Report, SCHEMA_VERSION, Sensitivity};
use crate::analysis::suffix::Reference;
use crate::analysis::{FloatRun, QuantizedRun, findings, measure, sensitivity};
use crate::error::{Error, Result};
use crate::input::{Picture, PictureSet, PictureSource, Prepared, Preprocess, Raster, builtin};
use crate::model::tap::Cancel;
use crate::model::{Model, Site, SiteInfo, SitePattern, labels};
use crate::quant::run::SitePlan;
use crate::quant::{Cache, Calibration, Method, Plan, Settings, bops, calibrate, file, pipeline, plan};

/// What photograph models should be calibrated on.
pub const CALIBRATION_ADVICE: &str =
    "calibrate on 32 of your own pictures (--calibration DIR): better than the crops of the four built-in ones";
/// Pictures in one batch of calibration or evaluation.
pub const BATCH: usize = 16;
/// Pictures whose float runs are kept.
const KEPT: usize = 4;

/// A model that is open and checked, before its calibration.
pub struct Opened {
    /// The model.
    pub model: Model,
    /// How pictures become tensors.
    pub preprocess: Preprocess,
    /// The pictures to look at.
    pub pictures: PictureSet,
    /// The settings, with what a quantizer file decides.
    pub settings: Settings,
    cache: Cache,
    calibration: CalibrationPlan,
    cache_folder: Option<PathBuf>,
}

enum CalibrationPlan {
    Pictures(String, Vec<Picture>),
    File(String),
}

impl Opened {
    /// Opens the model, finds the pictures, reads the quantizer file.
    ///
    /// # Errors
    /// When any of them is missing, damaged or does not fit the model.
    pub fn new(options: &Options) -> Result<Self> {
        Self::fetched(options, &|_| ())
    }

    /// The same, with a word on what comes from the Hub.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn fetched(options: &Options, progress: &dyn Fn(Progress)) -> Result<Self> {
        let mut model = Model::fetched(&options.model, options.offline, &|received| progress(Progress::received(&received)))?;
        if let Some(path) = &options.labels {
            model.labels = labels::of_file(path, model.config.classes())?;
        }
        let config = &model.config;
        if config.in_chans() == 3 && options.calibration.is_none() && options.quantizers.is_none() {
            model.notes.push(CALIBRATION_ADVICE.into());
        }
        let preprocess = preprocessing(&model)?;
        let mut pictures = match options.images.as_slice() {
            [] if config.in_chans() == 1 => PictureSet::fashion_test(),
            [] => PictureSet::photographs(),
            paths => PictureSet::from_paths(paths)?,
        };
        if options.shuffle {
            fastrand::Rng::with_seed(options.settings.seed).shuffle(&mut pictures.pictures);
        }
        let idle = |pattern: &&SitePattern| !model.sites().iter().any(|info| pattern.matches(info.site));
        if let Some(pattern) = options.settings.keep_float.iter().find(idle) {
            return Err(Error::setting("--keep-float", pattern, "a pattern that covers a site of the model; `igq inspect` lists them"));
        }
        let mut settings = options.settings.clone();
        let mut cache = Cache::default();
        let calibration = if let Some(path) = &options.quantizers {
            let read = file::read(path, &model)?;
            (settings.method, settings.groups, settings.row_groups) = (read.method, read.groups, read.row_groups);
            if read.method == Method::IgqE {
                (settings.abits, settings.sbits) = read.bits;
            }
            cache = Cache::with_quantizers(read.sites);
            CalibrationPlan::File(path.display().to_string())
        } else {
            calibration_pictures(options, config.in_chans())?
        };
        Ok(Self { model, preprocess, pictures, settings, cache, calibration, cache_folder: options.cache.clone() })
    }

    /// What is known now.
    #[must_use]
    pub fn info(&self) -> SessionInfo {
        SessionInfo {
            model: self.model.name.clone(),
            description: self.model.describe(),
            preprocessing: self.preprocess.describe(),
            notes: self.model.notes.clone(),
            pictures: self.pictures.name.clone(),
            picture_count: self.pictures.len(),
            tokens: self.model.network().tokens(),
            sites: self.model.sites().iter().map(|s| s.site).collect(),
        }
    }

    /// Runs the float model over the calibration pictures.
    ///
    /// # Errors
    /// When a picture cannot be prepared, or `cancel` was called.
    pub fn calibrate(self, cancel: &Cancel, progress: &dyn Fn(Progress)) -> Result<Session> {
        let mut store = None;
        let (source, batches, calibration) = match &self.calibration {
            CalibrationPlan::File(path) => (format!("quantizers of {path}"), Vec::new(), Calibration::default()),
            CalibrationPlan::Pictures(name, pictures) => {
                let prepared = pictures.iter().map(|p| Ok(self.preprocess.apply(p)?.tensor)).collect::<Result<Vec<_>>>()?;
                let batches = prepared.chunks(BATCH).map(|b| Ok(Tensor::cat(b, 0)?)).collect::<Result<Vec<_>>>()?;
                let total = pictures.len();
                let report = |done| progress(Progress { stage: format!("calibrating on {name}"), done, total });
                report(0);
                store = self.cache_folder.as_ref().map(|folder| Store::new(folder, &self.model.digest, &batches)).transpose()?;
                let known = store.as_ref().and_then(|s| s.calibration(self.model.sites())).filter(|known| known.images == total);
                let calibration = if let Some(known) = known {
                    known
                } else {
                    let fresh = calibrate(self.model.network(), &batches, cancel, report)?;
                    if let Some(store) = &store {
                        store.keep_calibration(&fresh);
                    }
                    fresh
                };
                (name.clone(), batches, calibration)
            }
        };
        let report = CalibrationReport { source, images: calibration.images };
        Ok(Session { opened: self, store, calibration, batches, report, floats: Mutex::default(), reference: Mutex::default() })
    }
}

/// How pictures become what `model` takes.
///
/// # Errors
/// When its preprocessing configuration is unusable.
pub fn preprocessing(model: &Model) -> Result<Preprocess> {
    let config = &model.config;
    Preprocess::from_config(model.raw_config.as_ref(), model.raw_preprocessor.as_ref(), config.in_chans(), config.image_size())
}

/// The pictures that the quantizers are fitted on.
fn calibration_pictures(options: &Options, in_chans: usize) -> Result<CalibrationPlan> {
    let load = |set: &PictureSet| set.pictures.iter().map(PictureSource::load).collect::<Result<Vec<_>>>();
    Ok(match &options.calibration {
        Some(folder) => {
            let mut set = PictureSet::from_paths(std::slice::from_ref(folder))?;
            if set.len() > options.calibration_images {
                fastrand::Rng::with_seed(options.settings.seed).shuffle(&mut set.pictures);
                set.pictures.truncate(options.calibration_images);
            }
            CalibrationPlan::Pictures(format!("{} pictures of {}", set.len(), folder.display()), load(&set)?)
        }
        None if in_chans == 1 => {
            let mut set = PictureSet::fashion_calibration();
            set.pictures.truncate(options.calibration_images);
            CalibrationPlan::Pictures(format!("{} built-in Fashion-MNIST training pictures", set.len()), load(&set)?)
        }
        None => {
            let mut crops = builtin::photograph_crops()?;
            crops.truncate(options.calibration_images);
            let name = format!("{} crops of the built-in photographs (32 of your own are better: --calibration)", crops.len());
            CalibrationPlan::Pictures(name, crops)
        }
    })
}

/// The float run of one picture, kept.
#[derive(Clone)]
pub struct Base {
    /// The picture as decoded.
    pub picture: Arc<Picture>,
    /// The picture as the model takes it.
    pub prepared: Arc<Prepared>,
    /// Its float run.
    pub float: Arc<FloatRun>,
}

/// Everything that one run leaves.
pub struct Outcome {
    /// The numbers.
    pub report: Report,
    /// The float run.
    pub base: Base,
    /// What every site did.
    pub plan: Plan,
    /// The quantized run.
    pub quantized: QuantizedRun,
}

/// One model, one calibration, a set of pictures.
pub struct Session {
    opened: Opened,
    store: Option<Store>,
    calibration: Calibration,
    /// The calibration pictures as the model takes them.
    batches: Vec<Tensor>,
    report: CalibrationReport,
    floats: Mutex<VecDeque<(usize, Base)>>,
    reference: Mutex<Option<Arc<Reference>>>,
}

impl Session {
    /// Opens and calibrates in one go.
    ///
    /// # Errors
    /// As [`Opened::new`] and [`Opened::calibrate`].
    pub fn open(options: &Options, progress: &dyn Fn(Progress)) -> Result<Self> {
        Opened::new(options)?.calibrate(&Cancel::default(), progress)
    }

    /// The model, the preprocessing, the pictures and the first settings.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// What the quantizers were fitted on.
    #[must_use]
    pub const fn calibration_report(&self) -> &CalibrationReport {
        &self.report
    }

    /// Where long computations are kept, if they are.
    #[must_use]
    pub const fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// The ranges that were collected.
    #[must_use]
    pub const fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// What every site does under `settings`.
    ///
    /// # Errors
    /// When a quantizer file does not cover a site, or the settings ask for a method that the file was not fitted for.
    pub fn plan(&self, settings: &Settings) -> Result<Plan> {
        let fitted = &self.opened.settings;
        let fit_of = |s: &Settings| {
            let bits = (s.method == Method::IgqE).then_some((s.abits, s.sbits));
            (s.method, s.groups, s.row_groups, bits, s.softmax, s.gelu)
        };
        if self.opened.cache.is_imported() && fit_of(settings) != fit_of(fitted) {
            let expected = format!("those of the quantizer file: {}", fitted.describe());
            return Err(Error::setting("method and group counts", settings.describe(), expected));
        }
        plan(&self.opened.model, &self.calibration, settings, &self.opened.cache)
    }

    /// What one site does under `settings`.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn site_plan(&self, settings: &Settings, info: &SiteInfo) -> Result<SitePlan> {
        pipeline::site_plan(&self.opened.model, &self.calibration, settings, &self.opened.cache, info)
    }

    /// The calibration pictures in batches `(B, C, height, width)`.
    ///
    /// # Errors
    /// When the quantizers came from a file, so that there are none.
    pub fn calibration_batches(&self) -> Result<&[Tensor]> {
        let none = || Error::setting("--quantizers", &self.report.source, "calibration pictures, on which perturbations are measured");
        if self.batches.is_empty() { Err(none()) } else { Ok(&self.batches) }
    }

    /// The float runs of the calibration pictures, computed once.
    ///
    /// # Errors
    /// When there are none, or `cancel` was called.
    pub fn reference(&self, cancel: &Cancel) -> Result<Arc<Reference>> {
        let mut slot = self.reference.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slot.as_ref() {
            return Ok(Arc::clone(known));
        }
        let model = &self.opened.model;
        let reference = Arc::new(Reference::new(model.network(), model.sites(), self.calibration_batches()?, cancel)?);
        *slot = Some(Arc::clone(&reference));
        Ok(reference)
    }

    /// The float run of picture `index`, computed once.
    ///
    /// # Errors
    /// When the picture cannot be read.
    pub fn base(&self, index: usize) -> Result<Base> {
        let known = |floats: &VecDeque<(usize, Base)>| floats.iter().find(|(i, _)| *i == index).map(|(_, base)| base.clone());
        if let Some(base) = known(&self.floats.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(base);
        }
        let source = self.opened.pictures.pictures.get(index);
        let source = source.ok_or_else(|| Error::setting("picture", index, format!("0 to {}", self.opened.pictures.len() - 1)))?;
        let picture = source.load()?;
        let prepared = self.opened.preprocess.apply(&picture)?;
        let float = FloatRun::new(self.opened.model.network(), &prepared.tensor)?;
        let base = Base { picture: Arc::new(picture), prepared: Arc::new(prepared), float: Arc::new(float) };
        let mut floats = self.floats.lock().unwrap_or_else(PoisonError::into_inner);
        floats.push_back((index, base.clone()));
        if floats.len() > KEPT {
            floats.pop_front();
        }
        Ok(base)
    }

    /// Runs picture `index` under `settings` and measures it.
    ///
    /// # Errors
    /// When the picture cannot be read, the settings do not fit, or `cancel` was called.
    pub fn run(&self, index: usize, settings: &Settings, cancel: &Cancel) -> Result<Outcome> {
        let base = self.base(index)?;
        let started = Instant::now();
        let plan = self.plan(settings)?;
        let quantized = QuantizedRun::new(self.opened.model.network(), &base.prepared.tensor, &plan, cancel)?;
        let seconds = started.elapsed().as_secs_f64();
        let model = &self.opened.model;
        let costs = bops::of_network(model.sites(), settings);
        let float_settings = Settings { method: Method::Float, ..settings.clone() };
        let prediction = measure::prediction(&base.float.logits, &quantized.logits, &model.labels);
        let sites = measure::sites(&plan, &costs, &base.float, &quantized);
        let name = |class: usize| ClassName { class, label: measure::class_name(&model.labels, class) };
        let report = Report {
            schema_version: SCHEMA_VERSION,
            model: ModelReport {
                name: model.name.clone(),
                source: model.source.clone(),
                description: model.describe(),
                parameters: model.parameters,
                config: model.config.clone(),
                notes: model.notes.clone(),
                tokens: model.network().tokens(),
            },
            settings: settings.clone(),
            calibration: self.report.clone(),
            picture: PictureReport {
                name: base.picture.name.clone(),
                source: base.picture.source.clone(),
                width: base.picture.raster.width,
                height: base.picture.raster.height,
                truth: base.picture.label.map(name),
                preprocessing: self.opened.preprocess.describe(),
            },
            verdict: findings::verdict(&prediction, &sites),
            prediction,
            bops: BopsReport {
                total: costs.iter().map(|(_, b)| b.total()).sum(),
                overhead: costs.iter().map(|(_, b)| b.overhead()).sum(),
                float: bops::total(model.sites(), &float_settings),
            },
            sites,
            seconds,
        };
        Ok(Outcome { report, base, plan, quantized })
    }

    /// Sensitivity of every quantized site by itself; `found` hears each.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn sweep(&self, outcome: &Outcome, cancel: &Cancel, mut found: impl FnMut(Site, Sensitivity)) -> Result<()> {
        for info in self.opened.model.sites() {
            cancel.check()?;
            let network = self.opened.model.network();
            if let Some(value) = sensitivity::only_this(network, &outcome.plan, &outcome.base.float, info.site, cancel)? {
                found(info.site, value);
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// What the screen needs of this run.
    #[must_use]
    pub fn snapshot(&self, id: u64, picture: usize) -> Snapshot {
        let map = |site: &Site| {
            let run = self.quantized.sites.get(site)?;
            let [_, heads, tokens, _] = run.shape[..] else { return None };
            // A softmax within windows has no map of the whole picture.
            self.report.site(*site).filter(|s| s.layout == self.report.model.tokens)?;
            let float = self.base.float.sites.get(site)?.clone();
            Some(AttentionMap { site: *site, heads, tokens, float, before: run.before.clone(), quantized: run.after.clone() })
        };
        let softmaxes = self.report.sites.iter().map(|s| &s.site).filter(|s| s.kind.is_softmax());
        Snapshot {
            id,
            picture,
            report: self.report.clone(),
            attention: softmaxes.filter_map(map).collect(),
            view: view(&self.base.prepared.view),
            compare: None,
        }
    }
}

fn view(raster: &Raster) -> PictureView {
    let pixels = (0..raster.height).flat_map(|y| (0..raster.width).map(move |x| (x, y)));
    PictureView { width: raster.width, height: raster.height, rgb: pixels.map(|(x, y)| raster.rgb(x, y)).collect() }
}
