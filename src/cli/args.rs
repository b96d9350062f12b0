//! The flags that commands share, and the settings that they resolve to.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::input::PictureSet;
use crate::model::{BUILT_IN, SiteKind, SitePattern};
use crate::quant::settings;
use crate::quant::{Arithmetic, BitWidth, GeluShape, GroupCount, Method, Preset, Rounding, Scope, Settings, SoftmaxShape, WeightScales};
use crate::session::{Options, Session, cache};
use crate::studies::evaluate;
use crate::studies::shard::Shard;
use crate::tui::ScreenOptions;
use crate::tui::config::{self, Pictures};
use crate::tui::theme::Theme;

/// One of the names of a type that is read from its name; the help lists them.
pub(super) fn one_of<T>(names: impl IntoIterator<Item = &'static str>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = Error> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}

/// Bits of everything, or of the sites of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitsOf {
    /// Of everything.
    All(BitWidth),
    /// Of a kind, its layers' weights included.
    Kind(SiteKind, BitWidth),
}

impl FromStr for BitsOf {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            None => Ok(Self::All(text.parse()?)),
            Some((kind, bits)) => Ok(Self::Kind(kind.parse()?, bits.parse()?)),
        }
    }
}

/// Flags that every command shares.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// Built-in name, safetensors file, folder with model.safetensors and config.json, or OWNER/NAME on the Hugging Face Hub.
    #[arg(long, default_value = BUILT_IN)]
    pub model: String,
    /// Take models of the Hub from its cache only, as HF_HUB_OFFLINE=1 does.
    #[arg(long)]
    pub offline: bool,
    /// Memory that a run may take. Default: half of what is free.
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub max_memory: Option<u64>,
    /// Pixels across and down of the input of a detector, which keeps proportions; other pictures are fitted inside. Default: as the first
    /// picture needs it.
    #[arg(long, value_name = "WxH", value_parser = parse_pixels)]
    pub input_size: Option<(usize, usize)>,
    /// Class names, one a line, instead of those of the checkpoint.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Picture, folder of pictures, pattern ('holiday/*.jpg') or - for standard input; may be repeated. Default: the built-in pictures.
    #[arg(long, value_name = "PATH")]
    pub image: Vec<PathBuf>,
    /// Put the pictures in a random order, the same for the same --seed.
    #[arg(long)]
    pub shuffle: bool,
    /// Index of the picture in the set.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub picture: usize,
    /// Folder of pictures that the quantizers are fitted on. Default: 32 built-in ones.
    #[arg(long, value_name = "DIR")]
    pub calibration: Option<PathBuf>,
    /// Most calibration pictures to take.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub calibration_images: u32,
    /// Use the quantizers that `igq calibrate` wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["calibration", "method", "groups", "row_groups"])]
    pub quantizers: Option<PathBuf>,
    /// How values share quantizers.
    #[arg(long, value_delimiter = ',', default_value = "igq", value_parser = one_of::<Method>(Method::ALL.map(Method::name)))]
    pub method: Vec<Method>,
    /// Bits of weights, activations and softmax together: 2 to 8, or 32 for float; KIND=BITS for the sites of a kind (`4,fc2=6`).
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    pub bits: Vec<BitsOf>,
    /// Bits of weights.
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    pub wbits: Vec<BitWidth>,
    /// Bits of activations.
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    pub abits: Vec<BitWidth>,
    /// Bits of the softmax; default: as the activations.
    #[arg(long, value_delimiter = ',', value_name = "BITS")]
    pub sbits: Vec<BitWidth>,
    /// Groups of channels: 1 to 64.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub groups: Vec<GroupCount>,
    /// Groups of softmax rows; default: as the channels.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub row_groups: Vec<GroupCount>,
    /// How weights become codes: to the nearest, or by GPTQ on the calibration pictures. Default: gptq.
    #[arg(long, value_delimiter = ',', value_name = "ROUNDING", value_parser = one_of::<Rounding>(Rounding::ALL.map(Rounding::name)))]
    pub weights: Vec<Rounding>,
    /// What of a weight shares a scale: channel, block=N (along the inputs), mxfp4, mxint8, nvfp4 or fp8-e4m3. Default: channel.
    #[arg(long, value_delimiter = ',', value_name = "SCALES")]
    pub weight_scales: Vec<WeightScales>,
    /// Values of a block, for block-int and for the attention of igq-token.
    #[arg(long, default_value_t = settings::BLOCK, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=4096))]
    pub block: u16,
    /// What the first and the last layer do. Default: first-last-8.
    #[arg(long, value_name = "PRESET", value_parser = one_of::<Preset>(Preset::ALL.map(Preset::name)))]
    pub preset: Option<Preset>,
    /// Divide the inputs of qkv and fc1 by factors that the norms before them and their weights absorb, so that ranges are easier and outputs stay.
    #[arg(long, conflicts_with = "quantizers")]
    pub smooth: bool,
    /// How much of a detector is quantized: backbone, transformer (without convolutions and masks), or all. Default: all.
    #[arg(long, value_name = "SCOPE", default_value = "all", value_parser = one_of::<Scope>(Scope::ALL.map(Scope::name)))]
    pub scope: Scope,
    /// Kinds of sites to quantize. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "KIND", value_parser = one_of::<SiteKind>(SiteKind::ALL.map(SiteKind::name)))]
    pub kinds: Vec<SiteKind>,
    /// Keep the sites of this pattern in float, weights included; may be repeated.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub keep_float: Vec<SitePattern>,
    /// The softmax instead of as the method says.
    #[arg(long, value_delimiter = ',', value_name = "SHAPE", value_parser = one_of::<SoftmaxShape>(SoftmaxShape::ALL.map(SoftmaxShape::name)))]
    pub softmax: Vec<SoftmaxShape>,
    /// The values after GELU instead of as the method says.
    #[arg(long, value_delimiter = ',', value_name = "SHAPE", value_parser = one_of::<GeluShape>(GeluShape::ALL.map(GeluShape::name)))]
    pub gelu: Vec<GeluShape>,
    /// What products are computed in: dequantized floats, or codes with 32-bit sums wherever that can be.
    #[arg(long, value_name = "ARITHMETIC", default_value = "fake-quantized", value_parser = one_of::<Arithmetic>(Arithmetic::ALL.map(Arithmetic::name)))]
    pub arithmetic: Arithmetic,
    /// What the sites of a pattern have of their own: `blocks.*.fc2=16` groups; may be repeated, the last counts.
    #[arg(long, value_name = "PATTERN=N", value_parser = parse_own::<GroupCount>)]
    pub site_groups: Vec<(SitePattern, GroupCount)>,
    /// Activation bits of the sites of a pattern: `head=8`.
    #[arg(long, value_name = "PATTERN=BITS", value_parser = parse_own::<BitWidth>)]
    pub site_abits: Vec<(SitePattern, BitWidth)>,
    /// Weight bits of the layers of a pattern.
    #[arg(long, value_name = "PATTERN=BITS", value_parser = parse_own::<BitWidth>)]
    pub site_wbits: Vec<(SitePattern, BitWidth)>,
    /// Take all settings from a JSON file that igq wrote (a report, an allocation, a suggestion).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "bits", "wbits", "abits", "sbits", "groups", "row_groups", "kinds", "keep_float", "softmax", "gelu", "arithmetic", "weights", "weight_scales", "block", "preset", "smooth", "scope", "site_groups", "site_abits", "site_wbits"])]
    pub settings_file: Option<PathBuf>,
    /// Open what `:save` wrote: run, pinned result and view. What is typed beside it goes before it.
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,
    /// Seed of the choice of calibration pictures from a larger folder, and of --shuffle.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Compute everything anew: neither read nor write the user's cache folder.
    #[arg(long)]
    pub no_cache: bool,
}

/// Whether a model folder's file of this name is one that a model is read from.
fn is_of_model(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    matches!(&*name, "config.json" | "preprocessor_config.json" | "model.safetensors.index.json")
        || (name.starts_with("model") && name.ends_with(".safetensors"))
}

/// `PATTERN=VALUE`
fn parse_own<T: FromStr<Err = Error>>(text: &str) -> Result<(SitePattern, T)> {
    let malformed = || Error::setting("setting of a site", text, "PATTERN=VALUE, such as blocks.*.fc2=16");
    let (pattern, value) = text.rsplit_once('=').ok_or_else(malformed)?;
    Ok((pattern.parse()?, value.parse()?))
}

impl RunArgs {
    /// Refuses an output that would be written over something that this command reads.
    pub(super) fn refuse_overwriting(&self, output: Option<&Path>) -> Result<()> {
        let Some(target) = output.and_then(|path| path.canonicalize().ok()) else { return Ok(()) };
        let model = Path::new(&self.model).canonicalize().ok();
        let read = [&self.labels, &self.quantizers, &self.settings_file].into_iter().flatten().chain(&self.image);
        let in_model = model.is_some_and(|model| model == target || (target.parent() == Some(model.as_path()) && is_of_model(&target)));
        if in_model || read.filter_map(|path| path.canonicalize().ok()).any(|path| path == target) {
            let name = target.display().to_string();
            return Err(Error::setting("--output or --dump", &name, "a file that this command does not read"));
        }
        Ok(())
    }

    /// What the session is made of.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn options(&self) -> Result<Options> {
        Ok(self.options_with(self.settings()?))
    }

    /// The same, with settings that were resolved elsewhere.
    #[must_use]
    pub fn options_with(&self, settings: Settings) -> Options {
        Options {
            model: self.model.clone(),
            offline: self.offline,
            max_memory: self.max_memory,
            input_size: self.input_size,
            labels: self.labels.clone(),
            images: self.image.clone(),
            shuffle: self.shuffle,
            calibration: self.calibration.clone(),
            calibration_images: self.calibration_images as usize,
            quantizers: self.quantizers.clone(),
            settings,
            cache: if self.no_cache { None } else { cache::user_folder() },
        }
    }
}

/// The model of a command that looks at nothing else.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Built-in name, safetensors file, folder with model.safetensors and config.json, or OWNER/NAME on the Hugging Face Hub.
    #[arg(value_name = "MODEL", default_value = BUILT_IN, conflicts_with = "named")]
    pub given: String,
    /// The same as a flag, as in the other commands.
    #[arg(long = "model", value_name = "MODEL")]
    pub named: Option<String>,
    /// Take models of the Hub from its cache only, as HF_HUB_OFFLINE=1 does.
    #[arg(long)]
    pub offline: bool,
    /// Memory that a run may take. Default: half of what is free.
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub max_memory: Option<u64>,
}

impl Look {
    /// What the screen takes: what was typed, then what the configuration file says.
    ///
    /// # Errors
    /// When the configuration file says what igq does not know, or there is no such theme.
    pub fn screen(&self) -> Result<ScreenOptions> {
        let config = config::load()?;
        let own: &'static [Theme] = config.themes.leak();
        // What the environment says of colours goes before the file, and what was typed before both.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let named = self.theme.as_ref().or(config.theme.as_ref().filter(|_| !no_color));
        Ok(ScreenOptions {
            theme: named.map(|name| Theme::named(name, own)).transpose()?,
            ascii: self.ascii || config.ascii,
            mouse: !self.no_mouse && config.mouse.unwrap_or(true),
            own,
            pictures: self.pictures.or(config.pictures).unwrap_or_default(),
        })
    }
}

impl Which {
    /// Bytes that a run may take.
    #[must_use]
    pub const fn max_memory(&self) -> Option<u64> {
        self.max_memory
    }

    /// What was named, either way.
    #[must_use]
    pub fn model(&self) -> &str {
        self.named.as_deref().unwrap_or(&self.given)
    }
}

/// Where a result goes.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Form of the result.
    #[arg(long, default_value = "text")]
    pub format: Format,
    /// File to write instead of standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

impl Output {
    /// Holds the report of a part to be JSON.
    ///
    /// # Errors
    /// When it is asked for in another form.
    pub fn require_json_of_a_part(&self, shard: Option<Shard>) -> Result<()> {
        match shard {
            Some(shard) if self.format != Format::Json => {
                Err(Error::setting("--shard without --format json", shard, "--format json, which `igq merge` reads"))
            }
            _ => Ok(()),
        }
    }
}

/// The images that something found is judged on.
#[derive(Debug, Clone, Args)]
pub struct JudgedOn {
    /// Judge on the built-in test set; default: found on every other calibration image, and the rest judge.
    #[arg(long)]
    evaluate: bool,
    /// Judge on the images of this folder.
    #[arg(long, visible_alias = "validate", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Judge on this many images only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl JudgedOn {
    /// The set; none for the calibration images that nothing was found on.
    ///
    /// # Errors
    /// When a folder holds no pictures, or one named by no class.
    pub fn set(&self, session: &Session) -> Result<Option<PictureSet>> {
        let asked = self.evaluate || self.data.is_some();
        asked.then(|| evaluate::data(session, self.data.as_deref(), self.limit)).transpose()
    }
}

/// How the screen looks.
#[derive(Debug, Clone, Default, Args)]
pub struct Look {
    /// Colours: dark, light, contrast, colorblind, mono, or a theme of the configuration file; NO_COLOR means mono.
    #[arg(long, value_name = "NAME")]
    pub theme: Option<String>,
    /// Draw with ASCII characters only.
    #[arg(long)]
    pub ascii: bool,
    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub no_mouse: bool,
    /// How pictures are drawn; half-blocks always can be. Default: as the terminal's environment says.
    #[arg(long, value_name = "HOW", value_parser = one_of::<Pictures>(Pictures::ALL.map(Pictures::name)))]
    pub pictures: Option<Pictures>,
}

/// Forms of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Text,
    /// The whole report.
    Json,
    /// One line a row.
    Csv,
    /// Tables for documents.
    Markdown,
}

/// Forms of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrameFormat {
    /// Text with the verdict and the command line.
    Md,
    /// Characters only.
    Txt,
    /// Characters with escape sequences for colour.
    Ansi,
    /// A picture for documents.
    Svg,
    /// A picture in pixels.
    Png,
}

pub(super) fn parse_size(text: &str) -> std::result::Result<(u16, u16), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((w, h)) if (1..=1000).contains(&w) && (1..=1000).contains(&h) => Ok((w, h)),
        _ => Err("expected columns x rows from 1x1 to 1000x1000, such as 120x40".into()),
    }
}

/// Columns x rows of pixels, as rows and columns.
fn parse_pixels(text: &str) -> std::result::Result<(usize, usize), String> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((h.parse().ok()?, w.parse().ok()?)));
    let inside = |side: &usize| (16..=4096).contains(side);
    parsed
        .filter(|(h, w)| inside(h) && inside(w))
        .ok_or_else(|| "expected pixels across and down from 16x16 to 4096x4096, such as 640x480".into())
}

/// Gibibytes to bytes.
fn parse_gib(text: &str) -> std::result::Result<u64, String> {
    let gib = text.parse().ok().filter(|gib: &f64| gib.is_finite() && *gib > 0.0 && *gib < 1e6);
    gib.map(|gib| (gib * (1_u64 << 30) as f64) as u64).ok_or_else(|| "expected gibibytes, such as 4 or 0.5".to_string())
}

pub(super) fn parse_tolerance(text: &str) -> std::result::Result<f32, String> {
    let expected = || "expected a number that is not negative, such as 1e-4".to_string();
    text.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_numbers_are_refused_with_the_flag_named() {
        for (flag, value) in [("--wbits", "9"), ("--groups", "0"), ("--groups", "65"), ("--method", "magic"), ("--size", "0x4")] {
            let error = Cli::try_parse_from(["igq", "snapshot", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag) && error.contains(value), "{error}");
        }
    }
}
