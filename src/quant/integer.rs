//! The integer arithmetic: the products of a quantized run on codes, as the method is meant to run on hardware. Activations are codes of 8 bits
//! without sign, weights of 8 bits with one, sums of 32 bits; a product is scaled to floats once for each group of channels.
//!
//! With codes `q` of an input channel in group `g` (scale `s_g`, zero point `z_g`) and `p` of output channel `o` (`t_o`, `y_o`):
//! the output is `t_o sum_g s_g (sum_c q_c p_oc - z_g sum_c p_oc - y_o sum_c (q_c - z_g))`, the inner sums over the channels of `g`: one
//! product a group, and zero points by sums of rows and columns. The softmax has a scale for every row and values one for every column, so
//! that their product is scaled once, by both. Queries times keys have groups along the inner dimension on both sides and stay in floats.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};

use super::bits::BitWidth;
use super::fake::{self, Observation};
use super::fit::Grouping;
use super::integer_weight::{COLUMNS, INTEGER, IntegerWeight, Part, matrix, middle};
use super::pins::Pins;
use super::plan::{Plan, SitePlan};
use super::uniform::{ChannelQuantizer, UniformQuantizer};
use super::weight::QuantizedWeight;
use crate::error::{Error, Result};
use crate::model::{Site, SiteKind, Tap, Weight, kernels};
use crate::progress::Cancel;

/// Most rows that are multiplied at once.
const ROWS: usize = 64;

/// A product of codes of `left` bits with codes of `right` bits that the processor's kernel may get wrong: without VNNI it adds two products in
/// 16 bits.
fn overflows(left: BitWidth, right: BitWidth) -> bool {
    let most = |bits: BitWidth| 1_i32 << bits.get();
    INTEGER.with(GemmExecutor::may_saturate) && 2 * (most(left) - 1) * most(right) / 2 > i32::from(i16::MAX)
}

/// What became of a pass in integers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Multiplied {
    /// Sites whose product was made of codes.
    pub integer: Vec<Site>,
    /// Sites whose product was made of dequantized floats, with the reason.
    pub float: BTreeMap<Site, &'static str>,
}

/// The operand of one picture at one site, as codes.
struct Coded {
    grouping: Grouping,
    /// One quantizer for each group.
    quantizers: Vec<UniformQuantizer>,
    /// Rows of `last` codes.
    codes: Vec<u8>,
    last: usize,
}

impl Coded {
    /// `None` where a quantizer is not uniform or its range is too narrow to have codes.
    fn new(site: Site, plan: &SitePlan, values: &[f32], last: usize) -> Option<Self> {
        let grouping = fake::group(site, values, last, plan.quantizers.as_ref()?, plan.bits).filter(|g| g.tiles.is_none())?;
        let quantizers = grouping.quantizers.iter().map(|q| q.as_uniform().copied()).collect::<Option<Vec<_>>>()?;
        let inhabited = || grouping.assignment.iter().map(|&group| &quantizers[usize::from(group)]);
        if inhabited().any(UniformQuantizer::is_degenerate) {
            return None; // It passes its values as they are.
        }
        let rows = grouping.along.is_rows();
        let of: Vec<UniformQuantizer> = if rows { inhabited().copied().collect() } else { Vec::new() };
        let channels = ChannelQuantizer::new(inhabited().take(if rows { 0 } else { last }));
        let mut codes = vec![0_u8; values.len()];
        let block = kernels::block(last);
        codes.par_chunks_mut(block).zip(values.par_chunks(block)).enumerate().for_each(|(index, (codes, values))| {
            let first = index * block / last;
            if rows {
                let each = codes.chunks_exact_mut(last).zip(values.chunks_exact(last)).zip(&of[first..]);
                each.for_each(|((codes, values), quantizer)| quantizer.bytes(values, codes));
            } else {
                channels.encode(values, codes);
            }
        });
        Some(Self { grouping, quantizers, codes, last })
    }

    /// The channels of each group that has some.
    fn members(&self) -> Vec<(UniformQuantizer, Vec<u32>)> {
        let mut members: Vec<Vec<u32>> = vec![Vec::new(); self.quantizers.len()];
        for (&group, channel) in self.grouping.assignment.iter().zip(0..) {
            members[usize::from(group)].push(channel);
        }
        self.quantizers.iter().copied().zip(members).filter(|(_, channels)| !channels.is_empty()).collect()
    }

    /// `x W^T + b` for one picture: `(N, C)` codes to `(N, C_out)`.
    fn linear(&self, weight: &IntegerWeight, bias: &[f32], out: &mut [f32]) -> Result<()> {
        let groups = self.members();
        let parts: Vec<Part> = match groups.len() {
            1 => Vec::new(),
            _ => groups.par_iter().map(|(_, channels)| weight.of_channels(channels)).collect::<Result<_>>()?,
        };
        let of_group = |group: usize| parts.get(group).unwrap_or_else(|| weight.whole());
        // What zero points of inputs take away is the same for every row.
        let mut shift = vec![0.0_f32; weight.outputs];
        for (group, (quantizer, _)) in groups.iter().enumerate() {
            let scaled = quantizer.scale * quantizer.zero_point;
            shift.iter_mut().zip(&of_group(group).sums).for_each(|(shift, &sum)| *shift += scaled * sum as f32);
        }
        let order: Vec<u32> = groups.iter().flat_map(|(_, channels)| channels.iter().copied()).collect();
        let (inputs, outputs) = (weight.inputs, weight.outputs);
        let rows_at_once = (self.codes.len() / inputs).div_ceil(2 * rayon::current_num_threads()).clamp(1, ROWS);
        let multiply = |(index, out): (usize, &mut [f32])| -> Result<()> {
            let rows = out.len() / outputs;
            let codes = &self.codes[index * rows_at_once * inputs..][..rows * inputs];
            let mut sorted = vec![0_u8; codes.len()];
            for (sorted, row) in sorted.chunks_exact_mut(inputs).zip(codes.chunks_exact(inputs)) {
                sorted.iter_mut().zip(&order).for_each(|(code, &channel)| *code = row[channel as usize]);
            }
            // For each row, the scaled sum of its centred codes: what zero points of weights take away.
            let mut centred = vec![0.0_f32; rows];
            let mut left = Vec::with_capacity(groups.len());
            let mut first = 0;
            for (quantizer, channels) in &groups {
                let view = matrix(&sorted[first..], (rows, channels.len()), (inputs, 1))?;
                left.push(INTEGER.with(|integer| integer.prepack_a(view)));
                let zero = quantizer.zero_point as i32 * channels.len() as i32;
                for (centred, row) in centred.iter_mut().zip(sorted.chunks_exact(inputs)) {
                    let sum = sum_of_codes(&row[first..first + channels.len()]);
                    *centred += quantizer.scale * (sum - zero) as f32;
                }
                first += channels.len();
            }
            let mut sums = vec![0_i32; rows * COLUMNS];
            for start in (0..outputs).step_by(COLUMNS) {
                let columns = start..outputs.min(start + COLUMNS);
                let sums = &mut sums[..rows * columns.len()];
                for (group, ((quantizer, _), left)) in groups.iter().zip(&left).enumerate() {
                    let right = GemmInputB::Packed(&of_group(group).packed[start / COLUMNS]);
                    let refused = |e| Error::content("a product of codes", format!("the kernel refuses it ({e:?})"), "report this");
                    let left = GemmInputA::Packed(left);
                    INTEGER.with(|integer| integer.gemm(sums, left, right, GemmOptions::default())).map_err(refused)?;
                    let keep = if group == 0 { 0.0 } else { 1.0 };
                    for (out, sums) in out.chunks_exact_mut(outputs).zip(sums.chunks_exact(columns.len())) {
                        add_scaled(&mut out[columns.clone()], sums, quantizer.scale, keep);
                    }
                }
            }
            for (out, &centred) in out.chunks_exact_mut(outputs).zip(&centred) {
                finish(out, (&weight.scale, &weight.zero), bias, &shift, centred);
            }
            Ok(())
        };
        out.par_chunks_mut(rows_at_once * outputs).enumerate().try_for_each(multiply)
    }
}

/// `keep y + scale sum`
#[multiversion(targets = "simd")]
fn add_scaled(out: &mut [f32], sums: &[i32], scale: f32, keep: f32) {
    for (y, &sum) in out.iter_mut().zip(sums) {
        *y = *y * keep + scale * sum as f32;
    }
}

/// What zero points take away, the scales of the outputs, and the bias.
#[multiversion(targets = "simd")]
fn finish(out: &mut [f32], (scale, zero): (&[f32], &[f32]), bias: &[f32], shift: &[f32], centred: f32) {
    for ((y, (&scale, &zero)), (&bias, &shift)) in out.iter_mut().zip(scale.iter().zip(zero)).zip(bias.iter().zip(shift)) {
        *y = scale * (*y - shift - zero * centred) + bias;
    }
}

#[multiversion(targets = "simd")]
fn sum_of_codes(codes: &[u8]) -> i32 {
    codes.iter().map(|&code| i32::from(code)).sum()
}

/// `A V` in codes for one picture: softmax rows `(M H n, n)` in the order of heads and windows, values `(M n, H d)`, to `(M, H, n, d)` for
/// `M` windows.
fn mix(rows: &Coded, values: &Coded, heads: usize, out: &mut [f32]) -> Result<()> {
    let (n, channels) = (rows.last, values.last);
    let width = channels / heads;
    let of = |coded: &Coded, index: usize| coded.quantizers[usize::from(coded.grouping.assignment[index])];
    let middle = values.quantizers.first().map_or(0, middle);
    let signed: Vec<i8> = values.codes.iter().map(|&code| (i16::from(code) - middle) as i8).collect();
    out.par_chunks_mut(n * width).enumerate().try_for_each(|(index, out)| {
        let (window, head) = (index / heads, index % heads);
        let left = GemmInputA::Unpacked(matrix(&rows.codes[index * n * n..][..n * n], (n, n), (n, 1))?);
        let right = GemmInputB::Unpacked(matrix(&signed[window * n * channels + head * width..], (n, width), (channels, 1))?);
        let row_quantizers: Vec<UniformQuantizer> = (0..n).map(|row| of(rows, index * n + row)).collect();
        let columns: Vec<UniformQuantizer> = (0..width).map(|column| of(values, head * width + column)).collect();
        let mut sums = vec![0_i32; n * width];
        let refused = |e| Error::content("a product of codes", format!("the kernel refuses it ({e:?})"), "report this");
        INTEGER.with(|integer| integer.gemm(&mut sums, left, right, GemmOptions::default())).map_err(refused)?;
        // What zero points take away, by sums of rows and columns.
        let mut of_columns = vec![0_i32; width];
        for row in signed[window * n * channels..].chunks_exact(channels).take(n) {
            of_columns.iter_mut().zip(&row[head * width..]).for_each(|(sum, &code)| *sum += i32::from(code));
        }
        let zeros: Vec<i32> = columns.iter().map(|q| q.zero_point as i32 - i32::from(middle)).collect();
        let of_rows = rows.codes[index * n * n..].chunks_exact(n);
        for (((out, sums), row), codes) in out.chunks_exact_mut(width).zip(sums.chunks_exact(width)).zip(&row_quantizers).zip(of_rows) {
            let (zero, of_row) = (row.zero_point as i32, sum_of_codes(codes));
            for (column, (y, &sum)) in out.iter_mut().zip(sums).enumerate() {
                let centred = sum - zero * of_columns[column] - zeros[column] * (of_row - zero * n as i32);
                *y = row.scale * columns[column].scale * centred as f32;
            }
        }
        Ok(())
    })
}

/// Makes products of codes, and shows every operand to `observe` where somebody looks.
pub(super) struct IntegerTap<'p, F> {
    plan: &'p Plan,
    cancel: &'p Cancel,
    observe: Option<F>,
    pins: Pins<'p>,
    /// Operands that wait for their product, picture by picture.
    coded: HashMap<Site, Vec<Coded>>,
    pub told: Multiplied,
}

impl<'p, F: FnMut(&Observation) -> Result<()>> IntegerTap<'p, F> {
    pub fn new(plan: &'p Plan, cancel: &'p Cancel, pins: Pins<'p>, observe: Option<F>) -> Self {
        Self { plan, cancel, observe, pins, coded: HashMap::new(), told: Multiplied::default() }
    }

    /// Shows what a quantizer does with `x`: what its codes stand for.
    fn show(&mut self, site: Site, x: &Tensor) -> Result<()> {
        let Some(observe) = self.observe.as_mut().filter(|_| !self.pins.freed()) else { return Ok(()) };
        let plan = self.plan.site(site)?;
        let (after, groupings) = match &plan.quantizers {
            Some(quantizers) if !plan.bits.is_float() => fake::fake_quantize(site, x, quantizers, plan.bits)?,
            _ => (x.clone(), Vec::new()),
        };
        observe(&Observation { plan, before: x, after: &after, groupings: &groupings })
    }

    /// Why the product of `site` is made of floats, or its weight for codes.
    fn weight_of(&self, site: Site) -> Result<std::result::Result<&Arc<QuantizedWeight>, &'static str>> {
        let plan = self.plan.site(site)?;
        Ok(match &plan.weight {
            _ if plan.info.near.is_some() => Err("it is a convolution"),
            _ if plan.bits.is_float() => Err("its input stays in float"),
            None => Err("its weight stays in float"),
            Some(weight) if weight.per_channel().is_none() => Err("its weight has more than one scale for an output channel"),
            Some(weight) if weight.integer()?.is_none() => Err("a row of its weight has no step"),
            Some(weight) if overflows(plan.bits, weight.bits()) => {
                Err("this processor has no VNNI: its kernel would overflow at these bits")
            }
            Some(weight) => Ok(weight),
        })
    }

    /// Why the product of softmax rows with values is made of floats, if it is.
    fn mixes(&self, site: Site) -> Result<Option<&'static str>> {
        let (rows, values) = (self.plan.site(site)?, self.plan.site(Site { kind: SiteKind::V, ..site })?);
        Ok(if rows.info.layout.looks_at.is_some() {
            Some("its tokens look at others")
        } else if rows.bits.is_float() || values.bits.is_float() {
            Some("an operand stays in float")
        } else if overflows(rows.bits, values.bits) {
            Some("this processor has no VNNI: its kernel would overflow at these bits")
        } else {
            None
        })
    }

    /// The codes of every picture of a batch; `None` where the site's quantizers have no codes on one scale.
    fn encode(&self, site: Site, x: &Tensor) -> Result<Option<Vec<Coded>>> {
        let (plan, last) = (self.plan.site(site)?, x.dim(D::Minus1)?);
        let picture = x.elem_count() / x.dim(0)?;
        kernels::with_values(x, |values| values.par_chunks(picture).map(|values| Coded::new(site, plan, values, last)).collect())
    }

    fn fake(&self, site: Site, x: &Tensor) -> Result<Tensor> {
        let plan = self.plan.site(site)?;
        match &plan.quantizers {
            Some(quantizers) if !plan.bits.is_float() => Ok(fake::fake_quantize(site, x, quantizers, plan.bits)?.0),
            _ => Ok(x.clone()),
        }
    }

    fn fall_back(&mut self, site: Site, why: &'static str, x: &Tensor) -> Result<Tensor> {
        self.told.float.insert(site, why);
        self.fake(site, x)
    }
}

impl<F: FnMut(&Observation) -> Result<()>> Tap for IntegerTap<'_, F> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        self.show(site, &x)?;
        let why = match site.kind {
            SiteKind::Q => Some("queries and keys are grouped along the sum"),
            SiteKind::K => return self.fake(site, &x), // The product is counted at its queries.
            SiteKind::V | SiteKind::Attn => self.mixes(Site { kind: SiteKind::Attn, ..site })?,
            _ => self.weight_of(site)?.err(),
        };
        if let Some(why) = why {
            return if site.kind == SiteKind::V { self.fake(site, &x) } else { self.fall_back(site, why, &x) };
        }
        match self.encode(site, &x)? {
            Some(coded) => {
                self.coded.insert(site, coded);
                Ok(x)
            }
            None if site.kind == SiteKind::V => self.fake(site, &x),
            None => self.fall_back(site, "its quantizer has no codes on one scale", &x),
        }
    }

    fn weight(&mut self, site: Site, weight: &Arc<Weight>) -> Result<Arc<Weight>> {
        self.plan.weight(site, weight)
    }

    fn layer(&mut self, site: Site, x: &Tensor, weight: &Arc<Weight>, bias: Option<&Tensor>) -> Result<Tensor> {
        let (Some(coded), Ok(quantized)) = (self.coded.remove(&site), self.weight_of(site)?) else {
            return kernels::linear(x, &*self.plan.weight(site, weight)?, bias);
        };
        let Some(integer) = quantized.integer()? else {
            return kernels::linear(x, &*self.plan.weight(site, weight)?, bias);
        };
        let bias = bias.map_or_else(|| Ok(vec![0.0; integer.outputs]), Tensor::to_vec1::<f32>)?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = integer.outputs;
        }
        let mut out = vec![0.0; shape.iter().product()];
        let size = out.len() / coded.len().max(1);
        out.par_chunks_mut(size).zip(&coded).try_for_each(|(out, coded)| coded.linear(integer, &bias, out))?;
        self.told.integer.push(site);
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }

    fn product(&mut self, sites: (Site, Site), left: &Tensor, right: &Tensor) -> Result<Tensor> {
        let (rows, values) = (self.coded.remove(&sites.0), self.coded.remove(&sites.1));
        let (rows, values) = match (rows, values) {
            (Some(rows), Some(values)) => (rows, values),
            (None, None) => return kernels::product(left, right),
            // One has codes and passed as it was, the other has none and passed dequantized: so does the first now.
            (None, Some(values)) => {
                let (outer, heads, n, width) = right.dims4()?;
                let value = right.transpose(1, 2)?.reshape((values.len(), (), heads * width))?;
                let value = self.fake(sites.1, &value)?.reshape((outer, n, heads, width))?.transpose(1, 2)?;
                return kernels::product(left, &value);
            }
            (Some(rows), None) => {
                self.told.float.insert(sites.0, "its values have no codes on one scale");
                let (_, _, n, _) = left.dims4()?;
                let softmax = self.fake(sites.0, &left.reshape((rows.len(), (), n, n))?)?.reshape(left.dims())?;
                return kernels::product(&softmax, right);
            }
        };
        let heads = self.plan.site(sites.0)?.info.heads;
        let mut shape = left.dims().to_vec();
        let (Some(last), Ok(width)) = (shape.last_mut(), right.dim(D::Minus1)) else { return kernels::product(left, right) };
        *last = width;
        let mut out = vec![0.0; shape.iter().product()];
        let size = out.len() / rows.len().max(1);
        out.par_chunks_mut(size).zip(rows.par_iter().zip(&values)).try_for_each(|(out, (rows, values))| mix(rows, values, heads, out))?;
        self.told.integer.push(sites.0);
        Ok(Tensor::from_vec(out, shape, &Device::Cpu)?)
    }

    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        self.pins.proposals(chosen)
    }

    fn objects(&mut self, found: Tensor) -> Result<Option<Tensor>> {
        Ok(self.pins.objects(found))
    }

    fn frees(&mut self) -> bool {
        self.pins.free()
    }

    fn checkpoint(&mut self) -> Result<()> {
        self.cancel.check()
    }
}
