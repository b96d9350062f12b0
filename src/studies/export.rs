//! Taking a configuration away: settings, command line, quantizers, quantized weights, and the whole network as an ONNX graph.
//!
//! | file | what it is |
//! |---|---|
//! | `settings.json` | `--settings-file` takes it |
//! | `command.txt` | the command line that gives the same run |
//! | `quantizers.safetensors` | `--quantizers` takes it; of methods whose quantizers are fitted |
//! | `weights.safetensors` | `LAYER.weight.codes` (u8, `(C_out, C)`, input channels in the order of the network), `LAYER.weight.scale` and `LAYER.weight.zero_point` (float32, `(C_out)`, or `(C_out, C / length)` for blocks of inputs): `w = scale (code - zero_point)`; for the float formats of a block `LAYER.weight.numbers` gives the number of every code: `w = scale numbers[code]`. Metadata: `igq.format` 1, `igq.settings`, and for every layer `LAYER.bits` and `LAYER.block` (inputs that share a scale) |
//! | `model.onnx` | standard operators of opset 18, input `pixels` `(1, C, height, width)`, output `logits` `(1, K)`: groups are found in the graph for every picture |
//! | `reference.safetensors` | `pixels` and `logits` of the first pictures, by igq, to check the graph with `examples/check_onnx.py` |

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use schemars::JsonSchema;
use serde::Serialize;

use crate::analysis::SCHEMA_VERSION;
use crate::analysis::report::json;
use crate::atomic_write::write_whole_in;
use crate::error::{Error, Result};
use crate::model::SiteInfo;
use crate::model::graph::Graph;
use crate::progress::{Cancel, Progress};
use crate::quant::files::{self, write_tensors};
use crate::quant::onnx::Quantizing;
use crate::quant::{Plan, Quantizer, Settings};
use crate::session::Session;

/// Pictures whose logits stand beside the graph.
const PICTURES: usize = 8;

/// What was written.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ExportReport {
    /// Version of the form.
    pub schema_version: u32,
    /// Short name of the model.
    pub model: String,
    /// What the settings are.
    pub settings: Settings,
    /// The files.
    pub files: Vec<PathBuf>,
    /// What could not be written, and why.
    pub left_out: Vec<String>,
}

/// Writes everything about `settings` into `folder`, which is made where there is none; `command` is the command line of the same run.
///
/// # Errors
/// When a file cannot be written, or `cancel` was called.
pub fn export(
    session: &Session,
    settings: &Settings,
    folder: &Path,
    command: &str,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<ExportReport> {
    let plan = session.plan(settings)?;
    let (mut written, mut left_out) = (Vec::new(), Vec::new());
    let at = |name: &str| folder.join(name);
    let mut stage = 0;
    let mut tell = |name: &str| {
        stage += 1;
        progress(Progress { stage: format!("writing {name}"), done: stage, total: 6 });
    };
    tell("settings.json");
    write_whole_in(&at("settings.json"), json(settings)?.as_bytes())?;
    write_whole_in(&at("command.txt"), format!("{command}\n").as_bytes())?;
    written.extend([at("settings.json"), at("command.txt")]);
    tell("quantizers.safetensors");
    match files::write(&at("quantizers.safetensors"), &plan, settings) {
        Ok(()) => written.push(at("quantizers.safetensors")),
        Err(error @ Error::Setting { .. }) => left_out.push(format!("quantizers.safetensors: {error}")),
        Err(error) => return Err(error),
    }
    tell("weights.safetensors");
    weights(&at("weights.safetensors"), &plan, settings)?;
    written.push(at("weights.safetensors"));
    tell("model.onnx");
    match onnx(session, &plan, settings) {
        Ok(bytes) => {
            write_whole_in(&at("model.onnx"), &bytes)?;
            tell("reference.safetensors");
            reference(&at("reference.safetensors"), session, &plan, cancel)?;
            written.extend([at("model.onnx"), at("reference.safetensors")]);
        }
        Err(error @ Error::Setting { .. }) => left_out.push(format!("model.onnx: {error}")),
        Err(error) => return Err(error),
    }
    let model = session.opened().model.name.clone();
    Ok(ExportReport { schema_version: SCHEMA_VERSION, model, settings: settings.clone(), files: written, left_out })
}

/// The name of the layer whose input a site is.
fn layer(info: &SiteInfo) -> String {
    info.layer.as_ref().map_or_else(|| info.site.to_string(), |layer| layer.name.clone())
}

/// The quantized weights.
fn weights(path: &Path, plan: &Plan, settings: &Settings) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let text = serde_json::to_string(settings).map_err(|e| Error::Output { what: "settings", problem: e.to_string() })?;
    let mut metadata = HashMap::from([("igq.format".to_string(), "1".to_string()), ("igq.settings".into(), text)]);
    for site in plan.sites.values() {
        let Some(weight) = &site.weight else { continue };
        let (name, (outputs, inputs)) = (layer(&site.info), weight.size);
        let blocks = weight.quantizers.len() / outputs.max(1);
        let shape = if blocks == 1 { vec![outputs] } else { vec![outputs, blocks] };
        let each =
            |f: fn(&Quantizer) -> f32| Tensor::from_vec(weight.quantizers.iter().map(f).collect::<Vec<_>>(), shape.clone(), &Device::Cpu);
        tensors.insert(format!("{name}.weight.codes"), Tensor::from_slice(&weight.codes, weight.size, &Device::Cpu)?);
        tensors.insert(format!("{name}.weight.scale"), each(Quantizer::scale)?);
        let element = weight.quantizers.iter().find_map(|q| if let Quantizer::Element(q) = q { Some(q) } else { None });
        match element {
            Some(q) => {
                let numbers: Vec<f32> = (0..q.codes() as u32).map(|code| q.element.number(code)).collect();
                let count = numbers.len();
                tensors.insert(format!("{name}.weight.numbers"), Tensor::from_vec(numbers, count, &Device::Cpu)?);
            }
            None => drop(tensors.insert(format!("{name}.weight.zero_point"), each(Quantizer::zero_point)?)),
        }
        metadata.insert(format!("{name}.bits"), weight.bits().to_string());
        let block = weight.blocks.iter().take_while(|&&b| b == 0).count();
        metadata.insert(format!("{name}.block"), if blocks == 1 { inputs } else { block }.to_string());
    }
    write_tensors(path, &tensors, metadata)
}

/// The network as a file of ONNX.
fn onnx(session: &Session, plan: &Plan, settings: &Settings) -> Result<Vec<u8>> {
    let opened = session.opened();
    let pixels = session.base(0)?.prepared.tensor.dims().to_vec();
    let mut graph = Graph::default();
    let logits = opened.model.network().draw(&mut graph, &"pixels".to_string(), &mut Quantizing { plan })?;
    let about =
        [("igq.model", opened.model.name.clone()), ("igq.settings", settings.describe()), ("igq.labels", opened.model.labels.join("\n"))];
    graph.finish(("pixels", &pixels), (&logits, &[1, opened.model.config.classes()]), &about)
}

/// What igq says of the first pictures.
fn reference(path: &Path, session: &Session, plan: &Plan, cancel: &Cancel) -> Result<()> {
    let (mut pixels, mut logits) = (Vec::new(), Vec::new());
    for index in 0..session.opened().pictures.len().min(PICTURES) {
        let base = session.base(index)?;
        pixels.push(base.prepared.tensor.clone());
        logits.push(session.predict(&base, plan, cancel)?.tensor()?);
    }
    let tensors = BTreeMap::from([("pixels".to_string(), Tensor::cat(&pixels, 0)?), ("logits".to_string(), Tensor::cat(&logits, 0)?)]);
    write_tensors(path, &tensors, HashMap::new())
}
