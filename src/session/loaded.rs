//! Loading what the options name: the model from wherever it is, the pictures, the quantizer file. Nothing runs yet.

use std::path::PathBuf;

use super::options::Options;
use crate::error::{Error, Result};
use crate::input::{Picture, PictureSet, PictureSource, Preprocess, builtin};
use crate::model::{Config, Model, Site, SitePattern, TokenLayout};
use crate::progress::Progress;
use crate::quant::curvature::WIDEST;
use crate::quant::weight_scheme::Rounding;
use crate::quant::{FitCache, Settings, files};

/// What photograph models should be calibrated on.
pub const CALIBRATION_ADVICE: &str =
    "calibrate on 32 of your own pictures (--calibration DIR): better than the crops of the four built-in ones";

/// A model that is open and checked, before its calibration.
pub struct LoadedModel {
    /// The model.
    pub model: Model,
    /// How pictures become tensors.
    pub preprocess: Preprocess,
    /// The pictures to look at.
    pub pictures: PictureSet,
    /// The settings, with what a quantizer file decides.
    pub settings: Settings,
    pub(super) cache: FitCache,
    pub(super) calibration: CalibrationPlan,
    pub(super) cache_folder: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
}

pub(super) enum CalibrationPlan {
    Pictures(String, Vec<Picture>),
    File(String),
}

impl LoadedModel {
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
        let mut model = Model::fetched(&options.model, options.offline, options.max_memory, progress)?;
        if let Some(why) = &model.not_classes {
            let problem = format!("{why}: top-1, agreement and KL mean nothing for it");
            return Err(Error::content(&model.name, problem, "name a classifier of two or more classes; inspect and verify work for any"));
        }
        if let Some(path) = &options.labels {
            model.name_classes(path)?;
        }
        let mut pictures = match options.images.as_slice() {
            [] if model.config.in_chans() == 1 => PictureSet::fashion_test(),
            [] => PictureSet::photographs(),
            paths => PictureSet::from_paths(paths)?,
        };
        if options.shuffle {
            fastrand::Rng::with_seed(options.settings.seed).shuffle(&mut pictures.pictures);
        }
        let preprocess = sized(&mut model, &pictures, options)?;
        for info in model.sites().to_vec() {
            let inputs = info.layer.and(info.product).map_or(0, |product| product.inner);
            if inputs > WIDEST {
                model.notes.push(format!("{}: {inputs} inputs are too many for GPTQ, its weights are rounded to nearest", info.site));
            }
        }
        let config = &model.config;
        let idle = |pattern: &&SitePattern| !model.sites().iter().any(|info| pattern.matches(info.site));
        let own = options.settings.overrides.iter().map(|own| ("--site-groups, --site-abits or --site-wbits", &own.sites));
        let kept = options.settings.keep_float.iter().map(|pattern| ("--keep-float", pattern));
        if let Some((flag, pattern)) = kept.chain(own).find(|(_, pattern)| idle(pattern)) {
            return Err(Error::setting(flag, pattern, "a pattern that covers a site of the model; `igq inspect` lists them"));
        }
        let mut settings = options.settings.clone();
        let mut cache = FitCache::default();
        let calibration = if let Some(path) = &options.quantizers {
            let read = files::read(path, &model)?;
            if settings.smooth || read.settings.smooth {
                let expected = "quantizers and settings without --smooth: its factors come from a calibration";
                return Err(Error::setting("--quantizers", path.display(), expected));
            }
            settings = read.settings.laid_over(&settings)?;
            if settings.weights == Rounding::Nearest {
                model.notes.push("a quantizer file holds no inputs of layers, which GPTQ needs: weights are rounded to nearest".into());
            }
            cache = FitCache::with_quantizers(read.sites);
            CalibrationPlan::File(path.display().to_string())
        } else {
            calibration_pictures(options, config.in_chans())?
        };
        // The size that the first picture asked for is said, because another command may begin with another picture.
        let size = model.config.takes_any_size().then_some(options.input_size.unwrap_or(preprocess.size));
        let flags = Options { input_size: size, ..options.clone() }.flags();
        Ok(Self { model, preprocess, pictures, settings, cache, calibration, cache_folder: options.cache.clone(), flags })
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
            threshold: self.model.config.threshold(),
            sites: self.model.sites().iter().map(|s| s.site).collect(),
            flags: self.flags.clone(),
        }
    }

    /// `settings` with what a quantizer file decides, where there is one.
    ///
    /// # Errors
    /// When they ask for what the file cannot give.
    pub fn with_fit(&self, settings: &Settings) -> Result<Settings> {
        if self.cache.is_imported() { self.settings.laid_over(settings) } else { Ok(settings.clone()) }
    }

    /// Whether a quantizer file, if there is one, was fitted for what `settings` say of `site`.
    pub(super) fn check_fit(&self, settings: &Settings, site: Site) -> Result<()> {
        if settings.smooth != self.settings.smooth {
            let opened = if self.settings.smooth { "with --smooth" } else { "without --smooth" };
            let expected = format!("settings of a model that was opened {opened}: open it again");
            return Err(Error::setting("smoothing", settings.describe(), expected));
        }
        if !self.cache.is_imported() || settings.activation_bits(site).is_float() || settings.same_fit(&self.settings, site) {
            return Ok(());
        }
        let expected = format!("those of the quantizer file: {}", self.settings.describe());
        Err(Error::setting("method, group counts and bits", settings.describe(), expected))
    }
}

/// How pictures become what `model` takes.
///
/// # Errors
/// When its preprocessing configuration is unusable.
pub fn preprocessing(model: &Model) -> Result<Preprocess> {
    let config = &model.config;
    if let Config::Rcnn(_) = config {
        return Preprocess::of_mmdet(model.raw_preprocessor.as_ref(), config.image_size());
    }
    Preprocess::from_config(model.raw_config.as_ref(), model.raw_preprocessor.as_ref(), config.in_chans(), config.image_size())
}

/// The preprocessing; a detector first takes the size that was asked for, or that its rule makes of the first picture.
fn sized(model: &mut Model, pictures: &PictureSet, options: &Options) -> Result<Preprocess> {
    let preprocess = preprocessing(model)?;
    if !model.config.takes_any_size() {
        return match options.input_size {
            Some((rows, columns)) if (rows, columns) != model.config.image_size() => {
                let (height, width) = model.config.image_size();
                let expected = format!("a detector that keeps proportions, or {width}x{height}, which {} takes", model.name);
                Err(Error::setting("--input-size", format!("{columns}x{rows}"), expected))
            }
            _ => Ok(preprocess),
        };
    }
    let first = || -> Result<Option<(usize, usize)>> {
        let Some(source) = pictures.pictures.first() else { return Ok(None) };
        let raster = source.load()?.raster;
        Ok(preprocess.input_for(raster.height, raster.width))
    };
    let size = options.input_size.map_or_else(first, |size| Ok(Some(size)))?.unwrap_or(model.config.image_size());
    model.resize(size, options.max_memory)?;
    Ok(Preprocess { size, ..preprocess })
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

/// What is known once a session is open, before any run.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionInfo {
    /// Short name of the model.
    pub model: String,
    /// One line about the model.
    pub description: String,
    /// One line about the preprocessing.
    pub preprocessing: String,
    /// What was inferred.
    pub notes: Vec<String>,
    /// Name of the picture set.
    pub pictures: String,
    /// Number of pictures in it.
    pub picture_count: usize,
    /// How tokens lie over the picture.
    pub tokens: TokenLayout,
    /// Probability from which on an object of a detector is shown.
    pub threshold: f64,
    /// All sites, in the order of the forward pass.
    pub sites: Vec<Site>,
    /// Flags of the command line that open the same session.
    pub flags: Vec<(&'static str, String)>,
}
