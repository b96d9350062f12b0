//! The session: one model, one calibration, a set of pictures; runs any settings on any of the pictures.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::Tensor;

use super::cache::Store;
use super::loaded::{CalibrationPlan, LoadedModel};
use super::options::Options;

use crate::analysis::detail::SiteDetail;
use crate::analysis::lens;
use crate::analysis::report::LensPoint;
use crate::analysis::report::{
    Blame, BopsReport, CalibrationReport, ClassName, ModelReport, PictureReport, PredictionReport, Repaired, Report, SCHEMA_VERSION,
    Sensitivity,
};
use crate::analysis::suffix::{self, Reference};
use crate::analysis::{FloatRun, Prediction, QuantizedRun, findings, measure, prediction};
use crate::cpu;
use crate::error::{Error, Result};
use crate::input::batches;
use crate::input::{Picture, PictureSet, PictureSource, Prepared};
use crate::model::{Model, Site, SiteInfo};
use crate::progress::{Cancel, Progress};
use crate::quant::SitePlan;
use crate::quant::plan::{plan_until, site_plan};
use crate::quant::{Calibration, Method, Part, Plan, Settings, Start, bops, calibrate, run, smooth};

/// Pictures whose float runs are kept.
const KEPT: usize = 4;

/// The float run of one picture, kept.
#[derive(Clone)]
pub struct FloatBaseline {
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
    pub base: FloatBaseline,
    /// What every site did.
    pub plan: Plan,
    /// The quantized run.
    pub quantized: Arc<QuantizedRun>,
}

/// A quantized run that is not measured yet.
pub(super) struct Run {
    base: FloatBaseline,
    plan: Plan,
    quantized: Arc<QuantizedRun>,
    /// Wall time of plan and run.
    seconds: f64,
}

/// One model, one calibration, a set of pictures.
pub struct Session {
    opened: LoadedModel,
    store: Option<Store>,
    calibration: Calibration,
    /// The calibration pictures as the model takes them.
    batches: Vec<Tensor>,
    report: CalibrationReport,
    floats: Mutex<VecDeque<(usize, FloatBaseline)>>,
    /// Pictures that were opened later; their indices come behind those of the set.
    later: Mutex<Vec<PictureSource>>,
    reference: Mutex<Option<Arc<Reference>>>,
    /// The newest run, for the part of the next one that is the same.
    newest: Mutex<Option<Arc<Newest>>>,
    /// What was run before anybody asked for it, the oldest first.
    pub(super) ahead: Mutex<VecDeque<Ahead>>,
}

/// What a picture is predicted as under settings that nobody has asked for yet.
pub(super) struct Ahead {
    pub(super) picture: usize,
    pub(super) settings: Settings,
    pub(super) prediction: Prediction,
}

/// A run, by its picture and plan.
struct Newest {
    picture: usize,
    settings: Settings,
    plan: Plan,
    quantized: Arc<QuantizedRun>,
}

/// The ranges of the calibration pictures, from `store` where they are known.
fn calibration_of(
    model: &Model,
    batches: &[Tensor],
    name: &str,
    store: Option<&Store>,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<Calibration> {
    let total = batches.iter().map(|batch| batch.dim(0)).sum::<candle_core::Result<usize>>()?;
    let report = |done| progress(Progress { stage: format!("calibrating on {name}"), done, total });
    report(0);
    if let Some(known) = store.and_then(|s| s.calibration(model.sites())).filter(|known| known.images == total) {
        return Ok(known);
    }
    let fresh = calibrate(model.network(), batches, cancel, report)?;
    if let Some(store) = store {
        store.keep_calibration(&fresh);
    }
    Ok(fresh)
}

impl Session {
    /// Runs the float model over the calibration pictures.
    ///
    /// # Errors
    /// When a picture cannot be prepared, or `cancel` was called.
    pub fn calibrated(mut loaded: LoadedModel, cancel: &Cancel, progress: &dyn Fn(Progress)) -> Result<Self> {
        let mut store = None;
        let (source, batches, calibration) = match &loaded.calibration {
            CalibrationPlan::File(path) => (format!("quantizers of {path}"), Vec::new(), Calibration::default()),
            CalibrationPlan::Pictures(name, pictures) => {
                let (name, batches) = (name.clone(), batches::stack(pictures, &loaded.preprocess)?);
                let calibrated = |model: &Model| {
                    let store = loaded.cache_folder.as_ref().map(|folder| Store::new(folder, &model.digest, &batches)).transpose()?;
                    let found = calibration_of(model, &batches, &name, store.as_ref(), cancel, progress)?;
                    Ok::<_, Error>((store, found))
                };
                let (own, mut calibration) = calibrated(&loaded.model)?;
                store = own;
                if loaded.settings.smooth {
                    loaded.model.smooth(&|site, weights| smooth::factors(&calibration, site, weights))?;
                    // The digest of the model says what it was smoothed for only together with the pictures, which belong to the key too.
                    (store, calibration) = calibrated(&loaded.model)?;
                }
                (name, batches, calibration)
            }
        };
        let report = CalibrationReport { source, images: calibration.images };
        Ok(Self::new(loaded, store, calibration, batches, report))
    }

    /// Of what was opened and calibrated.
    fn new(opened: LoadedModel, store: Option<Store>, calibration: Calibration, batches: Vec<Tensor>, report: CalibrationReport) -> Self {
        let (floats, later, reference, newest, ahead) = Default::default();
        Self { opened, store, calibration, batches, report, floats, later, reference, newest, ahead }
    }

    /// Opens and calibrates in one go.
    ///
    /// # Errors
    /// As [`LoadedModel::new`] and [`Self::calibrated`].
    pub fn open(options: &Options, progress: &dyn Fn(Progress)) -> Result<Self> {
        Self::calibrated(LoadedModel::new(options)?, &Cancel::default(), progress)
    }

    /// The model, the preprocessing, the pictures and the first settings.
    #[must_use]
    pub const fn opened(&self) -> &LoadedModel {
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
    /// When a quantizer file does not cover a site, or was fitted for other settings.
    pub fn plan(&self, settings: &Settings) -> Result<Plan> {
        self.plan_until(settings, &Cancel::default())
    }

    /// The same until `cancel` is called; what was fitted until then is kept.
    ///
    /// # Errors
    /// As [`Self::plan`], and when `cancel` was called.
    pub fn plan_until(&self, settings: &Settings, cancel: &Cancel) -> Result<Plan> {
        self.opened.model.sites().iter().try_for_each(|info| self.opened.check_fit(settings, info.site))?;
        plan_until(&self.opened.model, &self.calibration, settings, &self.opened.cache, cancel)
    }

    /// What one site does under `settings`.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn site_plan(&self, settings: &Settings, info: &SiteInfo) -> Result<SitePlan> {
        self.opened.check_fit(settings, info.site)?;
        site_plan(&self.opened.model, &self.calibration, settings, &self.opened.cache, info)
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

    /// Whether a picture's class is one of the model's: built-in labels belong to the built-in classes, a folder's were matched.
    #[must_use]
    pub fn is_label(&self, source: &PictureSource, class: usize) -> bool {
        let model = &self.opened.model;
        let built_in = matches!(source, PictureSource::FashionTest(_) | PictureSource::FashionCalibration(_));
        class < model.config.classes() && (!built_in || model.labels.first().is_some_and(|label| label == "T-shirt/top"))
    }

    /// Where picture `index` is: in the set, or behind it among those that were opened later.
    fn picture(&self, index: usize) -> Result<PictureSource> {
        let (set, later) = (&self.opened.pictures.pictures, self.later.lock().unwrap_or_else(PoisonError::into_inner));
        let source = set.get(index).or_else(|| later.get(index - set.len()));
        source.cloned().ok_or_else(|| Error::setting("picture", index, format!("0 to {}", set.len() + later.len() - 1)))
    }

    /// Opens more pictures; gives the index of the first of them and the number of all.
    ///
    /// # Errors
    /// When a path does not exist or the first picture cannot be read; none is added then.
    pub fn open_pictures(&self, paths: &[PathBuf]) -> Result<(usize, usize)> {
        if paths.iter().any(|path| path.as_os_str() == "-") {
            return Err(Error::setting("picture", "-", "a path: standard input belongs to the keys while the screen is open"));
        }
        let more = PictureSet::from_paths(paths)?.pictures;
        if let Some(first) = more.first() {
            first.load()?;
        }
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.opened.pictures.len() + later.len();
        later.extend(more);
        Ok((first, self.opened.pictures.len() + later.len()))
    }

    /// The float run of picture `index`, computed once.
    ///
    /// # Errors
    /// When the picture cannot be read.
    pub fn base(&self, index: usize) -> Result<FloatBaseline> {
        let known = |floats: &VecDeque<(usize, FloatBaseline)>| floats.iter().find(|(i, _)| *i == index).map(|(_, base)| base.clone());
        if let Some(base) = known(&self.floats.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(base);
        }
        let source = self.picture(index)?;
        let mut picture = source.load()?;
        picture.label = picture.label.filter(|class| self.is_label(&source, *class));
        let prepared = self.opened.preprocess.apply(&picture)?;
        let float = cpu::in_pool(|| FloatRun::new(self.opened.model.network(), &prepared.tensor))?;
        let base = FloatBaseline { picture: Arc::new(picture), prepared: Arc::new(prepared), float: Arc::new(float) };
        let mut floats = self.floats.lock().unwrap_or_else(PoisonError::into_inner);
        floats.push_back((index, base.clone()));
        if floats.len() > KEPT {
            floats.pop_front();
        }
        Ok(base)
    }

    /// What is predicted for a picture under a plan, and nothing else of the run.
    ///
    /// # Errors
    /// When the plan does not fit, or `cancel` was called.
    pub fn predict(&self, base: &FloatBaseline, plan: &Plan, cancel: &Cancel) -> Result<Prediction> {
        let output = cpu::in_pool(|| run(self.opened.model.network(), Start::at(&base.float.trace, 0), plan, cancel))?;
        Prediction::of_one(&output)
    }

    /// Runs picture `index` under `settings`, and measures nothing yet.
    pub(super) fn quantize(&self, index: usize, settings: &Settings, cancel: &Cancel) -> Result<Run> {
        let base = self.base(index)?;
        let started = Instant::now();
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let earlier = newest.as_ref().filter(|newest| newest.picture == index).map(|newest| (&newest.plan, &*newest.quantized));
        let (plan, quantized) = cpu::in_pool(|| {
            let plan = self.plan_until(settings, cancel)?;
            let quantized = QuantizedRun::after(self.opened.model.network(), &base.float, &plan, earlier, cancel)?;
            Ok::<_, Error>((plan, Arc::new(quantized)))
        })?;
        let newest = Arc::new(Newest { picture: index, settings: settings.clone(), plan: plan.clone(), quantized: Arc::clone(&quantized) });
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(newest);
        Ok(Run { base, plan, quantized, seconds: started.elapsed().as_secs_f64() })
    }

    /// The values of `site` just before its quantizer in the newest run, if that was of this picture under these settings.
    #[must_use]
    pub fn values_before(&self, picture: usize, settings: &Settings, site: Site) -> Option<Tensor> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let newest = newest.filter(|newest| newest.picture == picture && newest.settings == *settings)?;
        newest.quantized.at(self.opened.model.network(), &newest.plan, site, &Cancel::default()).ok().map(|run| run.before.clone())
    }

    pub(super) fn prediction(&self, run: &Run) -> PredictionReport {
        run.quantized.prediction.report(&run.base.float.prediction, &self.opened.model.labels)
    }

    /// Bit operations of the whole network for one picture.
    pub(super) fn bops(&self, settings: &Settings) -> BopsReport {
        let sites = self.opened.model.sites();
        let costs = bops::of_network(sites, settings);
        let float = Settings { method: Method::Float, ..settings.clone() };
        BopsReport {
            total: costs.iter().map(|(_, b)| b.total()).sum(),
            overhead: costs.iter().map(|(_, b)| b.overhead()).sum(),
            float: bops::total(sites, &float),
        }
    }

    /// Measures every site of a run.
    pub(super) fn measure(&self, run: Run, settings: &Settings, cancel: &Cancel) -> Result<Outcome> {
        let model = &self.opened.model;
        let prediction = self.prediction(&run);
        let costs = bops::of_network(model.sites(), settings);
        let sites = cpu::in_pool(|| measure::sites(model.network(), &run.plan, &costs, &run.base.float, &run.quantized, cancel))?;
        let name = |class: usize| ClassName { class, label: prediction::class_name(&model.labels, class) };
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
                name: run.base.picture.name.clone(),
                source: run.base.picture.source.clone(),
                width: run.base.picture.raster.width,
                height: run.base.picture.raster.height,
                truth: run.base.picture.label.map(name),
                preprocessing: self.opened.preprocess.describe(),
            },
            verdict: findings::verdict(&prediction, &sites),
            arithmetic: None,
            blame: None,
            lens: Vec::new(),
            prediction,
            bops: self.bops(settings),
            sites,
            seconds: run.seconds,
        };
        let Run { base, plan, quantized, .. } = run;
        Ok(Outcome { report, base, plan, quantized })
    }

    /// Runs picture `index` under `settings` and measures it.
    ///
    /// # Errors
    /// When the picture cannot be read, the settings do not fit, or `cancel` was called.
    pub fn run(&self, index: usize, settings: &Settings, cancel: &Cancel) -> Result<Outcome> {
        self.measure(self.quantize(index, settings, cancel)?, settings, cancel)
    }

    /// Sensitivity of every quantized site by itself; `found` hears each.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn sweep(&self, outcome: &Outcome, cancel: &Cancel, mut found: impl FnMut(Site, Sensitivity)) -> Result<()> {
        for info in self.opened.model.sites() {
            cancel.check()?;
            let network = self.opened.model.network();
            if let Some(value) = suffix::only_this(network, &outcome.plan, &outcome.base.float, info.site, cancel)? {
                found(info.site, value);
            }
        }
        Ok(())
    }
}

impl Session {
    /// What only `site` on one view shows of `outcome`, the answer to request `id`; none where the model has no such site.
    #[must_use]
    pub fn detail(&self, outcome: &Outcome, id: u64, site: Site) -> Option<SiteDetail> {
        let network = self.opened.model.network();
        let weight = network.weight(site).and_then(|weight| weight.tensor().ok());
        let plan = outcome.plan.sites.get(&site)?;
        let both = || {
            let float = outcome.base.float.at(network, plan.info.step, site)?;
            Ok::<_, Error>((float, outcome.quantized.at(network, &outcome.plan, site, &Cancel::default())?))
        };
        let both = cpu::in_pool(both).ok();
        Some(SiteDetail::new(id, plan, weight, both.as_ref().map(|(float, run)| (float, &**run))))
    }

    /// What float and quantized run of `outcome` would answer after every block.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn lens(&self, outcome: &Outcome, cancel: &Cancel) -> Result<Vec<LensPoint>> {
        cpu::in_pool(|| lens::lens(&self.opened.model, &outcome.plan, &outcome.base.float, &outcome.quantized, cancel))
    }

    /// What is to blame for what the prediction of `outcome` lost: runs with only weights, activations or softmax quantized, and runs with one of
    /// `sites` in float.
    ///
    /// # Errors
    /// When `cancel` was called.
    pub fn blame(&self, outcome: &Outcome, sites: &[Site], cancel: &Cancel) -> Result<Blame> {
        let kl = |plan: &Plan| Ok::<_, Error>(self.predict(&outcome.base, plan, cancel)?.against(&outcome.base.float.prediction).kl);
        let part = |part| kl(&outcome.plan.part(part));
        let repaired = |site: &Site| Ok(Repaired { site: *site, kl: kl(&outcome.plan.without(*site))? });
        Ok(Blame {
            weights: part(Part::Weights)?,
            activations: part(Part::Activations)?,
            softmax: part(Part::Softmax)?,
            repaired: sites.iter().map(repaired).collect::<Result<_>>()?,
        })
    }
}
