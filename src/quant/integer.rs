//! The integer arithmetic: the products of a quantized run on codes, as the method is meant to run on hardware. Activations are codes of 8 bits
//! without sign, weights of 8 bits with one, sums of 32 bits; a product is scaled to floats once for each group of channels.
//!
//! With codes `q` of an input channel in group `g` (scale `s_g`, zero point `z_g`) and `p` of output channel `o` (`t_o`, `y_o`):
//! `y_o = sum_g s_g t_o (sum_c (q_c - z_g) p_oc - y_o sum_c (q_c - z_g))`, the inner sums over the channels of `g`. The softmax has a scale
//! for every row and values one for every column, so that their product is scaled once, by both. Queries times keys have groups along the
//! inner dimension on both sides: they are multiplied in integers where both have one group, and in floats otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use candle_core::{D, Device, Tensor};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix, QuantParams};

use super::bits::BitWidth;
use super::fake::{self, Observation};
use super::fit::Grouping;
use super::integer_weight::{INTEGER, IntegerWeight, MIDDLE, matrix};
use super::plan::{Plan, SitePlan};
use super::uniform::{ChannelQuantizer, UniformQuantizer};
use super::weight::QuantizedWeight;
use crate::error::{Error, Result};
use crate::model::{Site, SiteKind, Tap, Weight, kernels};
use crate::progress::Cancel;

/// Rows whose sums are scaled while they are in the processor's caches.
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
        let grouping = fake::group(site, values, last, plan.quantizers.as_ref()?, plan.bits)?;
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
            pulp::Arch::new().dispatch(|| {
                for (row, (codes, values)) in codes.chunks_exact_mut(last).zip(values.chunks_exact(last)).enumerate() {
                    if rows {
                        let quantizer = &of[first + row];
                        codes.iter_mut().zip(values).for_each(|(code, &x)| *code = quantizer.byte(x));
                    } else {
                        channels.encode(values, codes);
                    }
                }
            });
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
        let whole = groups.len() == 1;
        let packed: Vec<PackedBMatrix<i8>> =
            if whole { Vec::new() } else { groups.par_iter().map(|(_, channels)| weight.of_channels(channels)).collect::<Result<_>>()? };
        let order: Vec<u32> = groups.iter().flat_map(|(_, channels)| channels.iter().copied()).collect();
        let (inputs, outputs) = (weight.inputs, weight.outputs);
        let rows_at_once = |(index, out): (usize, &mut [f32])| -> Result<()> {
            let rows = out.len() / outputs;
            let codes = &self.codes[index * ROWS * inputs..][..rows * inputs];
            let sorted: Vec<u8> = if whole {
                Vec::new()
            } else {
                let mut sorted = vec![0; codes.len()];
                for (sorted, row) in sorted.chunks_exact_mut(inputs).zip(codes.chunks_exact(inputs)) {
                    sorted.iter_mut().zip(&order).for_each(|(code, &channel)| *code = row[channel as usize]);
                }
                sorted
            };
            let codes = if whole { codes } else { &sorted };
            for row in out.chunks_exact_mut(outputs) {
                row.copy_from_slice(bias);
            }
            let mut sums = vec![0_i32; rows * outputs];
            let mut first = 0;
            for (index, (quantizer, channels)) in groups.iter().enumerate() {
                let zeros = vec![quantizer.zero_point as u8; rows];
                let left = GemmInputA::Unpacked(matrix(&codes[first..], (rows, channels.len()), (inputs, 1))?);
                let right = GemmInputB::Packed(packed.get(index).unwrap_or(&weight.packed));
                let options = GemmOptions { a_quant: Some(QuantParams { zero_point: &zeros }), ..GemmOptions::default() };
                let refused = |e| Error::content("a product of codes", format!("the kernel refuses it ({e:?})"), "report this");
                INTEGER.with(|integer| integer.gemm(&mut sums, left, right, options)).map_err(refused)?;
                pulp::Arch::new().dispatch(|| {
                    let zero = quantizer.zero_point as i32 * channels.len() as i32;
                    for (row, (out, sums)) in out.chunks_exact_mut(outputs).zip(sums.chunks_exact(outputs)).enumerate() {
                        let codes = &codes[row * inputs + first..][..channels.len()];
                        let centred = codes.iter().map(|&q| i32::from(q)).sum::<i32>() - zero;
                        let scales = weight.scale.iter().zip(&weight.zero);
                        for ((y, &sum), (&scale, &zero)) in out.iter_mut().zip(sums).zip(scales) {
                            *y += quantizer.scale * scale * (sum - zero * centred) as f32;
                        }
                    }
                });
                first += channels.len();
            }
            Ok(())
        };
        out.par_chunks_mut(ROWS * outputs).enumerate().try_for_each(rows_at_once)
    }
}

/// `A V` in codes for one picture: softmax rows `(M H n, n)` in the order of heads and windows, values `(M n, H d)`, to `(M, H, n, d)` for
/// `M` windows.
fn mix(rows: &Coded, values: &Coded, heads: usize, out: &mut [f32]) -> Result<()> {
    let (n, channels) = (rows.last, values.last);
    let width = channels / heads;
    let of = |coded: &Coded, index: usize| coded.quantizers[usize::from(coded.grouping.assignment[index])];
    let signed: Vec<i8> = values.codes.iter().map(|&code| (i16::from(code) - 128) as i8).collect();
    out.par_chunks_mut(n * width).enumerate().try_for_each(|(index, out)| {
        let (window, head) = (index / heads, index % heads);
        let left = GemmInputA::Unpacked(matrix(&rows.codes[index * n * n..][..n * n], (n, n), (n, 1))?);
        let right = GemmInputB::Unpacked(matrix(&signed[window * n * channels + head * width..], (n, width), (channels, 1))?);
        let row_quantizers: Vec<UniformQuantizer> = (0..n).map(|row| of(rows, index * n + row)).collect();
        let columns: Vec<UniformQuantizer> = (0..width).map(|column| of(values, head * width + column)).collect();
        let row_zeros: Vec<u8> = row_quantizers.iter().map(|q| q.zero_point as u8).collect();
        let column_zeros: Vec<i8> = columns.iter().map(|q| (q.zero_point - MIDDLE) as i8).collect();
        let options = GemmOptions {
            a_quant: Some(QuantParams { zero_point: &row_zeros }),
            b_quant: Some(QuantParams { zero_point: &column_zeros }),
            ..GemmOptions::default()
        };
        let mut sums = vec![0_i32; n * width];
        let refused = |e| Error::content("a product of codes", format!("the kernel refuses it ({e:?})"), "report this");
        INTEGER.with(|integer| integer.gemm(&mut sums, left, right, options)).map_err(refused)?;
        for ((out, sums), row) in out.chunks_exact_mut(width).zip(sums.chunks_exact(width)).zip(&row_quantizers) {
            for ((y, &sum), column) in out.iter_mut().zip(sums).zip(&columns) {
                *y = row.scale * column.scale * sum as f32;
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
    /// Operands that wait for their product, picture by picture.
    coded: HashMap<Site, Vec<Coded>>,
    pub told: Multiplied,
}

impl<'p, F: FnMut(&Observation) -> Result<()>> IntegerTap<'p, F> {
    pub fn new(plan: &'p Plan, cancel: &'p Cancel, observe: Option<F>) -> Self {
        Self { plan, cancel, observe, coded: HashMap::new(), told: Multiplied::default() }
    }

    /// Shows what a quantizer does with `x`: what its codes stand for.
    fn show(&mut self, site: Site, x: &Tensor) -> Result<()> {
        let Some(observe) = &mut self.observe else { return Ok(()) };
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
            _ if plan.bits.is_float() => Err("its input stays in float"),
            None => Err("its weight stays in float"),
            Some(weight) if weight.quantizers.iter().any(UniformQuantizer::is_degenerate) => Err("a row of its weight has no step"),
            Some(weight) if overflows(plan.bits, weight.bits()) => {
                Err("this processor has no VNNI: its kernel would overflow at these bits")
            }
            Some(weight) => Ok(weight),
        })
    }

    /// Why the product of softmax rows with values is made of floats, if it is.
    fn mixes(&self, site: Site) -> Result<Option<&'static str>> {
        let (rows, values) = (self.plan.site(site)?, self.plan.site(Site { kind: SiteKind::V, ..site })?);
        Ok(if rows.bits.is_float() || values.bits.is_float() {
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
        let integer = quantized.integer(weight.tensor())?;
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

    fn checkpoint(&mut self) -> Result<()> {
        self.cancel.check()
    }
}
