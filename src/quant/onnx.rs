//! A plan in standard ONNX operators: ranges of the picture at hand by `ReduceMin` and `ReduceMax`, its groups by distances and `ArgMin`,
//! their scales by `Gather`, and what the quantizer does by `Div`, `Round`, `Clip` and `Mul`.

use super::bits::BitWidth;
use super::fit::{Rule, SiteQuantizers};
use super::format::Format;
use super::group::Alpha;
use super::plan::Plan;
use super::quantizer::Quantizer;
use super::uniform::{Bounds, DEGENERATE, UniformQuantizer};
use super::weight::QuantizedWeight;
use crate::error::{Error, Result};
use crate::model::graph::{Graph, GraphTap, Setting, Value};
use crate::model::{Site, Weight};

/// Draws what a plan does.
pub struct Quantizing<'p> {
    /// The plan.
    pub plan: &'p Plan,
}

impl GraphTap for Quantizing<'_> {
    fn activation(&mut self, graph: &mut Graph, site: Site, x: Value) -> Result<Value> {
        let plan = self.plan.site(site)?;
        let Some(quantizers) = plan.quantizers.as_ref().filter(|_| !plan.bits.is_float()) else { return Ok(x) };
        let at = At { site, bits: plan.bits, tokens: plan.info.tokens, channels: plan.info.channels };
        at.draw(graph, &x, quantizers)
    }

    fn weight(&mut self, graph: &mut Graph, site: Site, float: &Weight) -> Result<Value> {
        match &self.plan.site(site)?.weight {
            Some(weight) => Ok(dequantized(graph, site, weight)),
            None => graph.tensor(float.tensor()?),
        }
    }
}

/// The codes of a weight, and what they stand for.
fn dequantized(graph: &mut Graph, site: Site, weight: &QuantizedWeight) -> Value {
    let (outputs, inputs) = weight.size;
    let codes = graph.bytes(&format!("{site}.weight.codes"), &[outputs, inputs], &weight.codes);
    let count = weight.quantizers.len() / outputs.max(1);
    let scales: Vec<f32> = weight.quantizers.iter().map(Quantizer::scale).collect();
    let zeros: Vec<f32> = weight.quantizers.iter().map(Quantizer::zero_point).collect();
    let table = weight.quantizers.iter().find_map(|q| match q {
        Quantizer::Element(q) => Some((0..q.codes() as u32).map(|code| q.element.number(code)).collect::<Vec<_>>()),
        _ => None,
    });
    // Not DequantizeLinear: ONNX Runtime multiplies what it gives by a kernel of its own (MatMulNBits), which rounds activations to 8 bits.
    let blocks = graph.integers(&weight.blocks.iter().map(|&b| i64::from(b)).collect::<Vec<_>>());
    let of_columns = |graph: &mut Graph, values: Vec<f32>| {
        let values = graph.floats(&[outputs, count], values);
        if count == 1 {
            return values;
        }
        graph.op_with("Gather", &[&values, &blocks], &[Setting::Int("axis", 1)])
    };
    let scale = of_columns(graph, scales);
    let numbers = if let Some(table) = table {
        let table = graph.floats(&[table.len()], table);
        let places = graph.op_with("Cast", &[&codes], &[Setting::Int("to", 6)]);
        graph.op_with("Gather", &[&table, &places], &[Setting::Int("axis", 0)])
    } else {
        let zero = of_columns(graph, zeros);
        let numbers = graph.op_with("Cast", &[&codes], &[Setting::Int("to", 1)]);
        graph.op("Sub", &[&numbers, &zero])
    };
    graph.op("Mul", &[&numbers, &scale])
}

/// Scale and zero point that values are quantized with, and where the range has no width.
struct Parameters {
    scale: Value,
    zero: Value,
    /// Where values stay as they are; none where that is nowhere.
    degenerate: Option<Value>,
}

/// A site being drawn.
struct At {
    site: Site,
    bits: BitWidth,
    tokens: usize,
    channels: usize,
}

impl At {
    const fn is_rows(&self) -> bool {
        self.site.kind.is_softmax()
    }

    fn max_code(&self) -> f32 {
        self.bits.max_code().unwrap_or(1) as f32
    }

    fn draw(&self, graph: &mut Graph, x: &Value, quantizers: &SiteQuantizers) -> Result<Value> {
        let bounds = &quantizers.bounds;
        match &quantizers.rule {
            Rule::Nearest(centres) => {
                let groups = self.assigned(graph, x, centres.as_deref().unwrap_or(bounds), None);
                self.by_group(graph, x, bounds, &groups)
            }
            Rule::LeastError(alpha) => {
                let groups = self.assigned(graph, x, bounds, Some(*alpha));
                self.by_group(graph, x, bounds, &groups)
            }
            Rule::NearestByToken => {
                let groups = self.assigned(graph, x, bounds, None);
                Ok(self.by_token_and_group(graph, x, bounds.len(), &groups))
            }
            Rule::Fixed(_) if bounds.len() == 1 => self.by_group(graph, x, bounds, &String::new()),
            Rule::Fixed(members) => {
                let members = graph.integers(&members.iter().map(|&g| i64::from(g)).collect::<Vec<_>>());
                // Rows of the softmax stand head by head: (1, H, N, 1).
                let shape: &[i64] = if self.is_rows() { &[1, -1, self.tokens as i64, 1] } else { &[1, 1, -1] };
                let members = graph.reshape(&members, shape);
                self.by_group(graph, x, bounds, &members)
            }
            Rule::OwnRange => {
                let axes: &[i64] = if self.is_rows() { &[1, 2, 3] } else { &[1, 2] };
                Ok(self.by_own_range(graph, x, axes, false))
            }
            Rule::Tiles(tiling) if tiling.format == Format::Int => {
                let (axis, length) =
                    if tiling.down { (1, self.tokens) } else { (-1, if self.is_rows() { self.tokens } else { self.channels }) };
                let unit = if tiling.down { self.tokens } else { tiling.unit };
                let starts = (0..length).step_by(unit.max(1));
                let sizes = starts.flat_map(|start| {
                    let end = (start + unit).min(length);
                    (start..end).step_by(tiling.length.max(1)).map(move |first| tiling.length.min(end - first))
                });
                let sizes: Vec<usize> = sizes.collect();
                let parts = graph.split(x, axis, &sizes);
                let parts: Vec<Value> = parts.iter().map(|part| self.by_own_range(graph, part, &[axis], true)).collect();
                Ok(graph.concat(&parts, axis))
            }
            Rule::Tiles(tiling) => Err(self.refused(&format!("{:?}", tiling.format))),
            Rule::One(_) => Err(self.refused("a logarithmic or twin quantizer")),
        }
    }

    fn refused(&self, what: &str) -> Error {
        let expected = "uniform quantizers, which standard ONNX operators express: layer, channel, contiguous, sorted, per-token, block-int, igq, igq-means, igq-e, igq-token";
        Error::setting("what quantizes this site", format!("{what} at {}", self.site), expected)
    }

    /// The group of every channel `(1, 1, C)`, or softmax row `(1, H, N, 1)`, of this picture.
    fn assigned(&self, graph: &mut Graph, x: &Value, bounds: &[Bounds], alpha: Option<Alpha>) -> Value {
        let ends = |f: fn(&Bounds) -> f32| bounds.iter().map(f).collect::<Vec<_>>();
        let lower = graph.floats(&[bounds.len()], ends(|b| b.lower));
        let upper = graph.floats(&[bounds.len()], ends(|b| b.upper));
        let (low, high) = if self.is_rows() {
            (graph.float(0.0), graph.reduce("ReduceMax", x, &[-1])) // (1, H, N, 1) beside (G)
        } else {
            let (low, high) = (graph.reduce("ReduceMin", x, &[1]), graph.reduce("ReduceMax", x, &[1]));
            (graph.reshape(&low, &[1, 1, -1, 1]), graph.reshape(&high, &[1, 1, -1, 1])) // beside (G)
        };
        let above = graph.op("Sub", &[&high, &upper]);
        let below = graph.op("Sub", &[&lower, &low]);
        let squared = |graph: &mut Graph, difference: Value, weight: Option<f64>| {
            let difference = match weight {
                Some(_) => graph.op("Relu", &[&difference]),
                None => difference,
            };
            let square = graph.op("Mul", &[&difference, &difference]);
            match weight {
                Some(weight) => {
                    let weight = graph.float(weight as f32);
                    graph.op("Mul", &[&square, &weight])
                }
                None => square,
            }
        };
        let above = squared(graph, above, alpha.map(|a| a.upper));
        let below = squared(graph, below, alpha.map(|a| a.lower));
        let mut cost = graph.op("Add", &[&above, &below]);
        if alpha.is_some() {
            let n = f64::from(self.max_code());
            let rounding = bounds.iter().map(|b| ((f64::from(b.width()) / n).powi(2) / 12.0) as f32).collect::<Vec<_>>();
            let rounding = graph.floats(&[bounds.len()], rounding);
            cost = graph.op("Add", &[&cost, &rounding]);
        }
        let keep = i64::from(self.is_rows());
        graph.op_with("ArgMin", &[&cost], &[Setting::Int("axis", -1), Setting::Int("keepdims", keep)])
    }

    /// Fitted quantizers, by the group of every channel or row; `groups` is not looked at where there is one quantizer.
    fn by_group(&self, graph: &mut Graph, x: &Value, bounds: &[Bounds], groups: &Value) -> Result<Value> {
        let quantizers = bounds.iter().map(|&b| UniformQuantizer::new(b, self.bits)).collect::<Option<Vec<_>>>();
        let quantizers = quantizers.ok_or_else(|| self.refused("no quantizer"))?;
        let of = |graph: &mut Graph, values: Vec<f32>| {
            if let [one] = values.as_slice() {
                return graph.float(*one);
            }
            let values = graph.floats(&[values.len()], values);
            graph.op_with("Gather", &[&values, groups], &[Setting::Int("axis", 0)])
        };
        // A range of no width leaves values as they are: by a scale of 1 that is not looked at.
        let scale = of(graph, quantizers.iter().map(|q| if q.is_degenerate() { 1.0 } else { q.scale }).collect());
        let zero = of(graph, quantizers.iter().map(|q| q.zero_point).collect());
        let degenerate = quantizers.iter().any(UniformQuantizer::is_degenerate).then(|| {
            let flags = of(graph, quantizers.iter().map(|q| f32::from(u8::from(q.is_degenerate()))).collect());
            graph.op_with("Cast", &[&flags], &[Setting::Int("to", 9)])
        });
        Ok(self.quantized(graph, x, &Parameters { scale, zero, degenerate }))
    }

    /// One quantizer for what lies along `axes`, from its own range.
    fn by_own_range(&self, graph: &mut Graph, x: &Value, axes: &[i64], in_half: bool) -> Value {
        let (low, high) = (graph.reduce("ReduceMin", x, axes), graph.reduce("ReduceMax", x, axes));
        let parameters = self.parameters(graph, &low, &high, in_half);
        self.quantized(graph, x, &parameters)
    }

    /// A quantizer for every token and group, from the token's values in it.
    fn by_token_and_group(&self, graph: &mut Graph, x: &Value, count: usize, groups: &Value) -> Value {
        let (nothing, mut lows, mut highs) = (graph.float(0.0), Vec::new(), Vec::new());
        for group in 0..count {
            // Ranges are widened to hold zero, so that others may count as zero.
            let group = graph.integer(group as i64);
            let members = graph.op("Equal", &[groups, &group]);
            let of_members = graph.op("Where", &[&members, x, &nothing]);
            lows.push(graph.reduce("ReduceMin", &of_members, &[-1]));
            highs.push(graph.reduce("ReduceMax", &of_members, &[-1]));
        }
        let (low, high) = (graph.concat(&lows, -1), graph.concat(&highs, -1)); // (1, N, G)
        let Parameters { scale, zero, degenerate } = self.parameters(graph, &low, &high, true);
        let places = graph.reshape(groups, &[-1]);
        let of_channel = |graph: &mut Graph, values: &Value| graph.op_with("Gather", &[values, &places], &[Setting::Int("axis", -1)]);
        let (scale, zero) = (of_channel(graph, &scale), of_channel(graph, &zero));
        let degenerate = degenerate.map(|flags| of_channel(graph, &flags));
        self.quantized(graph, x, &Parameters { scale, zero, degenerate })
    }

    /// The uniform quantizer of ranges, which are widened to hold zero; with a scale in half precision that clips nothing where `in_half`.
    fn parameters(&self, graph: &mut Graph, low: &Value, high: &Value, in_half: bool) -> Parameters {
        let (zero, one, n) = (graph.float(0.0), graph.float(1.0), graph.float(self.max_code()));
        let (low, high) = (graph.op("Min", &[low, &zero]), graph.op("Max", &[high, &zero]));
        let width = graph.op("Sub", &[&high, &low]);
        let narrow = graph.float(DEGENERATE);
        let degenerate = graph.op("Less", &[&width, &narrow]);
        let mut scale = graph.op("Div", &[&width, &n]);
        if in_half {
            let near = to_half(graph, &scale);
            // The next larger half: 3/4 of the distance to it further, rounded.
            let (share, least) = (graph.float(0.75 / 1024.0), graph.float(0.75 / f32::from(1_u16 << 12) / f32::from(1_u16 << 12)));
            let further = graph.op("Mul", &[&near, &share]);
            let further = graph.op("Max", &[&further, &least]);
            let further = graph.op("Add", &[&near, &further]);
            let next = to_half(graph, &further);
            let below = graph.op("Less", &[&near, &scale]);
            scale = graph.op("Where", &[&below, &next, &near]);
        }
        let scale = graph.op("Where", &[&degenerate, &one, &scale]);
        let offset = graph.op("Sub", &[&zero, &low]);
        let offset = graph.op("Div", &[&offset, &scale]);
        let offset = graph.op("Round", &[&offset]);
        let zero = graph.op("Clip", &[&offset, &zero, &n]);
        Parameters { scale, zero, degenerate: Some(degenerate) }
    }

    /// `s (clip(round(x / s) + z, 0, n) - z)`
    fn quantized(&self, graph: &mut Graph, x: &Value, Parameters { scale, zero, degenerate }: &Parameters) -> Value {
        let steps = graph.op("Div", &[x, scale]);
        let steps = graph.op("Round", &[&steps]);
        let code = graph.op("Add", &[&steps, zero]);
        let (least, most) = (graph.float(0.0), graph.float(self.max_code()));
        let code = graph.op("Clip", &[&code, &least, &most]);
        let steps = graph.op("Sub", &[&code, zero]);
        let y = graph.op("Mul", &[&steps, scale]);
        match degenerate {
            Some(flags) => graph.op("Where", &[flags, x, &y]),
            None => y,
        }
    }
}

/// Rounded to half precision.
fn to_half(graph: &mut Graph, x: &Value) -> Value {
    let half = graph.op_with("Cast", &[x], &[Setting::Int("to", 10)]);
    graph.op_with("Cast", &[&half], &[Setting::Int("to", 1)])
}
