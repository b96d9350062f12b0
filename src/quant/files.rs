//! Quantizers as a file: `SITE.lower` and `SITE.upper`, one value a group; `SITE.centre_lower` and
//! `SITE.centre_upper`, to which distances are where not to the bounds; `SITE.row_upper` for the softmax, whose lower end is zero;
//! `SITE.members`, the group of each channel, where it is the same for every picture; `SITE.alpha` of the error-aware rule, (below, above). Safetensors,
//! float32 and u32.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;

use super::bits::BitWidth;
use super::calibrate::{Calibration, SiteRanges};
use super::curvature::{Curvature, Triangle, WIDEST};
use super::fit::{Rule, SiteQuantizers};
use super::group::Alpha;
use super::method::{GeluShape, Method, SoftmaxShape, Stored};
use super::plan::Plan;
use super::settings::Settings;
use super::uniform::Bounds;
use crate::atomic_write::write_whole;
use crate::error::{Error, Result};
use crate::model::{Model, Site, SiteInfo};
use crate::read;

/// Fitted quantizers read from a file.
#[derive(Debug)]
pub struct QuantizerFile {
    /// By site.
    pub sites: HashMap<Site, Arc<SiteQuantizers>>,
    /// What they were fitted for.
    pub settings: Settings,
}

/// Writes the activation quantizers of `plan`; the whole file or none.
///
/// # Errors
/// When the method has nothing to write, or the file cannot be written.
pub fn write(path: &Path, plan: &Plan, settings: &Settings) -> Result<()> {
    if settings.method.spec().stored.is_none() || settings.softmax != SoftmaxShape::Method || settings.gelu != GeluShape::Method {
        let expected = format!("a method with fitted uniform quantizers: {}", Method::names_with(|spec| spec.stored.is_some()));
        return Err(Error::setting("method", settings.describe(), expected));
    }
    let mut tensors = BTreeMap::new();
    for (site, site_plan) in &plan.sites {
        let Some(quantizers) = &site_plan.quantizers else { continue };
        let mut put = |name: &str, values: Vec<f32>| -> Result<()> {
            let length = values.len();
            tensors.insert(format!("{site}.{name}"), Tensor::from_vec(values, length, &Device::Cpu)?);
            Ok(())
        };
        let upper = quantizers.bounds.iter().map(|b| b.upper).collect();
        if site.kind.is_softmax() {
            put("row_upper", upper)?;
        } else {
            put("lower", quantizers.bounds.iter().map(|b| b.lower).collect())?;
            put("upper", upper)?;
        }
        match &quantizers.rule {
            Rule::Fixed(members) => {
                let members: Vec<u32> = members.iter().map(|&g| u32::from(g)).collect();
                let length = members.len();
                tensors.insert(format!("{site}.members"), Tensor::from_vec(members, length, &Device::Cpu)?);
            }
            Rule::LeastError(alpha) => put("alpha", vec![alpha.lower as f32, alpha.upper as f32])?,
            Rule::Nearest(Some(centres)) => {
                put("centre_lower", centres.iter().map(|b| b.lower).collect())?;
                put("centre_upper", centres.iter().map(|b| b.upper).collect())?;
            }
            Rule::Nearest(None) | Rule::NearestByToken | Rule::OwnRange | Rule::Tiles(_) | Rule::One(_) => {}
        }
    }
    let metadata = HashMap::from([
        ("igq.method".into(), settings.method.to_string()),
        ("igq.groups".into(), settings.groups.to_string()),
        ("igq.row_groups".into(), settings.row_groups.to_string()),
        ("igq.abits".into(), settings.abits.to_string()),
        ("igq.sbits".into(), settings.sbits.to_string()),
        ("igq.settings".into(), serde_json::to_string(settings).map_err(|e| Error::Output { what: "settings", problem: e.to_string() })?),
    ]);
    write_tensors(path, &tensors, metadata)
}

/// Text entries of a safetensors file.
pub type Metadata = HashMap<String, String>;

/// Writes tensors through a temporary file beside the target, so that a failure leaves no half of one.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: Metadata) -> Result<()> {
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|e| Error::Output { what: "safetensors file", problem: e.to_string() })?;
    write_whole(path, &bytes)
}

/// Reads what [`write()`] wrote, and checks it against the model.
///
/// # Errors
/// When the file is missing, damaged, or does not fit the model.
pub fn read(path: &Path, model: &Model) -> Result<QuantizerFile> {
    let name = path.display().to_string();
    let bytes = read::bytes(path, read::QUANTIZERS)?;
    let broken = |problem: String| Error::content(&name, problem, "write it anew with `igq calibrate --output`");
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(format!("not a complete safetensors file ({e})")))?;
    let entries = header.metadata().clone().unwrap_or_default();
    let entry = |key: &str| entries.get(key).ok_or_else(|| broken(format!("expected the metadata `{key}`, found none")));
    let method: Method = entry("igq.method")?.parse()?;
    // Files of other programs may have the plain entries only.
    let settings: Settings = if let Some(text) = entries.get("igq.settings") {
        serde_json::from_str(text)
            .and_then(Settings::read)
            .map_err(|e| broken(format!("expected settings in the metadata `igq.settings` ({e})")))?
    } else {
        let (groups, row_groups) = (entry("igq.groups")?.parse()?, entry("igq.row_groups")?.parse()?);
        let bits = |key: &str| entries.get(key).map_or(Ok(BitWidth::FLOAT), |text| text.parse());
        Settings { method, groups, row_groups, abits: bits("igq.abits")?, sbits: bits("igq.sbits")?, ..Settings::default() }
    };
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
    let floats = |key: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = tensors.get(key) else { return Ok(None) };
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bad = |expected: &str, found: String| Error::Tensor { file: name.clone(), key: key.into(), expected: expected.into(), found };
        if values.is_empty() || values.iter().any(|v| !v.is_finite()) {
            return Err(bad("finite values, one a group", format!("{values:?}")));
        }
        Ok(Some(values))
    };
    let mut sites = HashMap::new();
    for info in model.sites() {
        let site = info.site;
        let bounds: Vec<Bounds> = if site.kind.is_softmax() {
            let Some(upper) = floats(&format!("{site}.row_upper"))? else { continue };
            upper.into_iter().map(|u| Bounds::new(0.0, u)).collect()
        } else {
            let (lower, upper) = (floats(&format!("{site}.lower"))?, floats(&format!("{site}.upper"))?);
            let (Some(lower), Some(upper)) = (lower, upper) else { continue };
            if lower.len() != upper.len() || lower.iter().zip(&upper).any(|(l, u)| l > u) {
                let found = format!("{} and {} values", lower.len(), upper.len());
                return Err(Error::Tensor {
                    file: name.clone(),
                    key: format!("{site}.lower"),
                    expected: "as many values as upper, none above it".into(),
                    found,
                });
            }
            lower.into_iter().zip(upper).map(|(l, u)| Bounds::new(l, u)).collect()
        };
        let rule = match tensors.get(&format!("{site}.members")) {
            None if method.spec().stored == Some(Stored::Nearest) => {
                let (lower, upper) = (floats(&format!("{site}.centre_lower"))?, floats(&format!("{site}.centre_upper"))?);
                Rule::Nearest(match (lower, upper) {
                    (Some(lower), Some(upper)) if lower.len() == bounds.len() && upper.len() == bounds.len() => {
                        Some(lower.into_iter().zip(upper).map(|(l, u)| Bounds::new(l, u)).collect())
                    }
                    (None, None) => None,
                    _ => return Err(broken(format!("expected {} values in {site}.centre_lower and .centre_upper", bounds.len()))),
                })
            }
            None if method.spec().stored == Some(Stored::LeastError) => {
                let alpha = floats(&format!("{site}.alpha"))?.unwrap_or_default();
                // One value for both sides is what files had before igq told them apart.
                let (Some(lower), Some(upper)) = (alpha.first(), alpha.last()) else { return Err(broken(format!("no {site}.alpha"))) };
                Rule::LeastError(Alpha { lower: f64::from(*lower), upper: f64::from(*upper) })
            }
            found => {
                let members = found.map(|t| t.to_dtype(DType::U32)?.to_vec1::<u32>()).transpose()?.unwrap_or_default();
                if members.len() != info.channels || members.iter().any(|&g| g as usize >= bounds.len()) {
                    let expected = format!("{} groups below {}", info.channels, bounds.len());
                    return Err(Error::Tensor {
                        file: name.clone(),
                        key: format!("{site}.members"),
                        expected,
                        found: format!("{} values", members.len()),
                    });
                }
                Rule::Fixed(members.iter().map(|&g| g as u16).collect())
            }
        };
        sites.insert(site, Arc::new(SiteQuantizers { bounds, rule }));
    }
    if sites.is_empty() {
        return Err(broken("expected quantizers for the sites of the model, found none".into()));
    }
    Ok(QuantizerFile { sites, settings })
}

/// What calibration found, as a safetensors file: `SITE.min` and `SITE.max` (pictures by channels), `SITE.alpha`, `SITE.sample`.
///
/// # Errors
/// Only when candle fails.
pub fn calibration_bytes(calibration: &Calibration) -> Result<Vec<u8>> {
    let mut tensors = BTreeMap::new();
    for (site, ranges) in &calibration.sites {
        let all = ranges.all();
        let shape = (ranges.images.len(), all.len() / ranges.images.len().max(1));
        let mut put = |name: &str, tensor: Tensor| tensors.insert(format!("{site}.{name}"), tensor);
        put("min", Tensor::from_vec(all.iter().map(|b| b.lower).collect::<Vec<f32>>(), shape, &Device::Cpu)?);
        put("max", Tensor::from_vec(all.iter().map(|b| b.upper).collect::<Vec<f32>>(), shape, &Device::Cpu)?);
        put("alpha", Tensor::from_vec(vec![ranges.alpha.lower, ranges.alpha.upper], 2, &Device::Cpu)?);
        put("values", Tensor::from_vec(vec![ranges.values as u32], 1, &Device::Cpu)?);
        if let Some(curvature) = &ranges.curvature {
            let row = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
            put("mean_squares", row(&curvature.mean_squares)?);
            put("order", Tensor::from_slice(&curvature.order, curvature.order.len(), &Device::Cpu)?);
            put("inverse_factor", row(&curvature.upper.values)?);
        }
        put("sample", Tensor::from_vec(ranges.sample.clone(), ranges.sample.len(), &Device::Cpu)?);
    }
    let metadata = Metadata::from([("igq.images".into(), calibration.images.to_string())]);
    safetensors::serialize(&tensors, Some(metadata)).map_err(|e| Error::Output { what: "calibration", problem: e.to_string() })
}

/// What rounding a layer's weight needs, from the tensors of its site; none where they do not fit its channels.
fn read_curvature<'t>(get: &impl Fn(&str) -> Result<&'t Tensor>, channels: usize) -> Result<Option<Curvature>> {
    let (mean_squares, order) = (get("mean_squares")?.to_vec1::<f32>()?, get("order")?.to_vec1::<u32>()?);
    let upper = Triangle { size: channels, values: get("inverse_factor")?.to_vec1()? };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    let fits =
        mean_squares.len() == channels && upper.values.len() == channels * (channels + 1) / 2 && sorted.into_iter().eq(0..channels as u32);
    Ok(fits.then_some(Curvature { mean_squares, order, upper }))
}

/// Reads what [`calibration_bytes`] gave; `name` is for messages.
///
/// # Errors
/// When the file is damaged, or does not cover exactly `sites`.
pub fn read_calibration(name: String, bytes: &[u8], sites: &[SiteInfo]) -> Result<Calibration> {
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
    let mut calibration = Calibration::default();
    for info in sites {
        let get = |part: &str| {
            let key = format!("{}.{part}", info.site);
            let missing = || Error::Tensor { file: name.clone(), key: key.clone(), expected: "a tensor".into(), found: "none".into() };
            tensors.get(&key).ok_or_else(missing)
        };
        let (min, max) = (get("min")?.to_vec2::<f32>()?, get("max")?.to_vec2::<f32>()?);
        let fits = |rows: &[Vec<f32>]| !rows.is_empty() && rows.iter().all(|r| r.len() == info.channels && r.iter().all(|v| v.is_finite()));
        if !fits(&min) || !fits(&max) || min.len() != max.len() {
            let expected = format!("finite ranges of {} channels", info.channels);
            return Err(Error::Tensor { file: name, key: format!("{}.min", info.site), expected, found: "others".into() });
        }
        let row = |(min, max): (&Vec<f32>, &Vec<f32>)| min.iter().zip(max).map(|(&l, &u)| Bounds::new(l, u)).collect();
        let broken = |part: &str, expected: String| Error::Tensor {
            file: name.clone(),
            key: format!("{}.{part}", info.site),
            expected,
            found: "others".into(),
        };
        let [lower, upper] = get("alpha")?.to_vec1::<f64>()?[..] else { return Err(broken("alpha", "two values".into())) };
        let values = get("values")?.to_vec1::<u32>()?.first().copied().unwrap_or(0) as usize;
        // A convolution has more inputs than channels: all values of a neighbourhood.
        let inputs = info.product.map_or(info.channels, |product| product.inner);
        let rounded_by = info.layer.as_ref().filter(|_| inputs <= WIDEST);
        let curvature = rounded_by.map(|_| read_curvature(&get, inputs)).transpose()?;
        let curvature = match curvature {
            Some(None) => return Err(broken("inverse_factor", format!("a triangle for {inputs} inputs"))),
            found => found.flatten().map(Arc::new),
        };
        let ranges = SiteRanges {
            images: min.iter().zip(&max).map(row).collect(),
            alpha: Alpha { lower, upper },
            values,
            sample: get("sample")?.to_vec1()?,
            curvature,
        };
        calibration.images = ranges.images.len();
        calibration.sites.insert(info.site, ranges);
    }
    Ok(calibration)
}
