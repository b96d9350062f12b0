//! Arithmetic on the values of tensors: matrix products by rten-gemm, with weights packed once, and work row by row over slices. Candle's
//! tensors stay the container; nothing here knows of a network. What is computed does not depend on the number of threads: a product sums
//! along its inner dimension in blocks of one size, and rows are independent.

use std::fmt;
use std::sync::OnceLock;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor, bail};
use multiversion::multiversion;
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions, PackedBMatrix};
use rten_tensor::NdTensorView;

use crate::error::{Error, Result};

/// Values that a thread takes at once: for fewer, waking another thread costs more than it helps.
pub const GRAIN: usize = 16 * 1024;

thread_local! {
    /// The kernel for this processor, chosen once a thread: asking the processor what it can do is slow in a virtual machine.
    static FLOAT: GemmExecutor = GemmExecutor::new();
}

/// The weight `(C_out, C)` of a linear layer: its values, its form for the matrix kernel, which is made at the first product and kept, or
/// both.
pub struct Weight {
    size: (usize, usize),
    tensor: Option<Tensor>,
    packed: OnceLock<PackedBMatrix<f32>>,
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weight{:?}", self.size)
    }
}

impl Weight {
    /// A weight `(C_out, C)`, not packed yet.
    ///
    /// # Errors
    /// When it does not have two dimensions.
    pub fn new(tensor: Tensor) -> Result<Self> {
        Ok(Self { size: tensor.dims2()?, tensor: Some(tensor), packed: OnceLock::new() })
    }

    /// Packs values `(C_out, C)` and does not keep them: half the memory where products are all that is asked for.
    ///
    /// # Errors
    /// When there are more or fewer values.
    pub fn packed_only(values: &[f32], size: (usize, usize)) -> Result<Self> {
        Ok(Self { size, tensor: None, packed: OnceLock::from(pack(values, size)?) })
    }

    /// `C_out` and `C`.
    #[must_use]
    pub const fn size(&self) -> (usize, usize) {
        self.size
    }

    /// `(C_out, C)`
    ///
    /// # Errors
    /// Where only its packed form was kept.
    pub fn tensor(&self) -> Result<&Tensor> {
        let gone = || Error::content("a weight", "only its packed form was kept", "report this");
        self.tensor.as_ref().ok_or_else(gone)
    }

    fn packed(&self) -> Result<&PackedBMatrix<f32>> {
        if let Some(packed) = self.packed.get() {
            return Ok(packed);
        }
        let packed = with_values(self.tensor()?, |values| pack(values, self.size))??;
        Ok(self.packed.get_or_init(|| packed))
    }
}

/// Packs `(C_out, C)`, which the product takes as `(C, C_out)`.
fn pack(values: &[f32], (outputs, inputs): (usize, usize)) -> Result<PackedBMatrix<f32>> {
    let transposed = view(values, (inputs, outputs), (1, inputs))?;
    Ok(FLOAT.with(|float| float.prepack_b(transposed)))
}

/// Gives `work` the values of a float32 tensor in order, without a copy where it lies in one piece.
///
/// # Errors
/// When the tensor does not hold float32 values in this computer's memory.
pub fn with_values<T>(x: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => Ok(work(&values[start..end])),
        _ => Err(not_float32()),
    }
}

fn not_float32() -> Error {
    Error::content("a tensor", "it holds something else than float32 values", "report this: igq converts every tensor that it loads")
}

fn view(values: &[f32], (rows, columns): (usize, usize), (row, column): (usize, usize)) -> Result<NdTensorView<'_, f32, 2>> {
    NdTensorView::from_data_with_strides([rows, columns], values, [row, column])
        .map_err(|e| Error::content("a matrix", format!("its layout does not fit its values ({e:?})"), "report this"))
}

/// `len` values that `fill` has computed, all of them.
fn computed(len: usize, fill: impl FnOnce(&mut [std::mem::MaybeUninit<f32>]) -> Option<usize>) -> Option<Vec<f32>> {
    let mut values = Vec::with_capacity(len);
    let filled = fill(&mut values.spare_capacity_mut()[..len])?;
    if filled != len {
        return None;
    }
    // SAFETY: rten-gemm has given back all `len` values as initialized, which `filled` is the number of.
    #[allow(unsafe_code)]
    unsafe {
        values.set_len(len);
    }
    Some(values)
}

fn refused(error: impl fmt::Debug) -> Error {
    Error::content("a matrix product", format!("the kernel refuses it ({error:?})"), "report this")
}

/// `X^T X` of rows of `columns` values: `(columns, columns)`.
///
/// # Errors
/// When the kernel refuses the shapes.
pub fn gram(values: &[f32], columns: usize) -> Result<Vec<f32>> {
    let rows = values.len() / columns.max(1);
    let left = GemmInputA::Unpacked(view(values, (columns, rows), (1, columns))?);
    let right = GemmInputB::Unpacked(view(values, (rows, columns), (columns, 1))?);
    let product = computed(columns * columns, |out| {
        FLOAT.with(|float| float.gemm_uninit(out, left, right, GemmUninitOptions::default()).map(|y| y.len()).ok())
    });
    product.ok_or_else(|| refused("its shapes do not fit"))
}

/// `x W^T + b`: `(.., C)` to `(.., C_out)`.
///
/// # Errors
/// When the last dimension is not `C`.
pub fn linear(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.size;
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(inputs) {
        return Err(refused(format!("input {:?}, weight ({outputs}, {inputs})", x.dims())));
    }
    let rows: usize = shape.iter().product();
    let bias = bias.map(Tensor::to_vec1::<f32>).transpose()?;
    let packed = weight.packed()?;
    let options = GemmUninitOptions { bias: bias.as_deref().map(BiasVector::Row), ..GemmUninitOptions::default() };
    let y = with_values(x, |values| {
        let left = GemmInputA::Unpacked(view(values, (rows, inputs), (inputs, 1))?);
        let mut problem = None;
        let product = computed(rows * outputs, |out| {
            let done = FLOAT.with(|float| float.gemm_uninit(out, left, GemmInputB::Packed(packed), options).map(|y| y.len()));
            done.map_err(|error| problem = Some(error)).ok()
        });
        product.ok_or_else(|| refused(problem))
    })??;
    shape.push(outputs);
    Ok(Tensor::from_vec(y, shape, &Device::Cpu)?)
}

/// The matrices of a tensor `(.., M, K)`: where each begins, their rows and columns, and the strides of these.
struct Matrices {
    starts: Vec<usize>,
    size: (usize, usize),
    strides: (usize, usize),
}

fn matrices(x: &Tensor) -> Result<Matrices> {
    let (dims, stride) = (x.dims(), x.stride());
    let Some(outer) = dims.len().checked_sub(2) else { return Err(refused(dims)) };
    let mut starts = vec![x.layout().start_offset()];
    for (&size, &stride) in dims[..outer].iter().zip(&stride[..outer]) {
        starts = starts.iter().flat_map(|start| (0..size).map(move |i| start + i * stride)).collect();
    }
    Ok(Matrices { starts, size: (dims[outer], dims[outer + 1]), strides: (stride[outer], stride[outer + 1]) })
}

/// The products of the matrices of two tensors, `(.., M, K)` by `(.., K, P)`, which may be views with any strides.
///
/// # Errors
/// When the dimensions do not fit.
pub fn product(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let Matrices { starts: lefts, size: (m, k), strides: left_strides } = matrices(left)?;
    let Matrices { starts: rights, size: (inner, p), strides: right_strides } = matrices(right)?;
    if lefts.len() != rights.len() || k != inner {
        return Err(refused((left.dims(), right.dims())));
    }
    let ((l, _), (r, _)) = (left.storage_and_layout(), right.storage_and_layout());
    let (Storage::Cpu(CpuStorage::F32(l)), Storage::Cpu(CpuStorage::F32(r))) = (&*l, &*r) else { return Err(not_float32()) };
    let lefts = lefts.iter().map(|&at| Ok(GemmInputA::Unpacked(view(&l[at..], (m, k), left_strides)?))).collect::<Result<Vec<_>>>()?;
    let rights = rights.iter().map(|&at| Ok(GemmInputB::Unpacked(view(&r[at..], (k, p), right_strides)?))).collect::<Result<Vec<_>>>()?;
    let mut problem = None;
    let products = computed(lefts.len() * m * p, |out| {
        let options = GemmUninitOptions::default();
        let done = FLOAT.with(|float| float.batched_gemm_uninit(out, &lefts, &rights, options).map(|y| y.len()));
        done.map_err(|error| problem = Some(error)).ok()
    });
    let mut shape = left.dims()[..left.rank() - 2].to_vec();
    shape.extend([m, p]);
    Ok(Tensor::from_vec(products.ok_or_else(|| refused(problem))?, shape, &Device::Cpu)?)
}

/// The blocks of whole rows that threads take at once, in values.
#[must_use]
pub fn block(row: usize) -> usize {
    row.max(1) * (GRAIN / row.max(1)).max(1)
}

/// Changes `values`, rows of `row` values, block by block on several threads; `work` is given where a block begins.
pub fn change_rows(values: &mut [f32], row: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let block = block(row);
    if values.len() <= block {
        work(0, values);
    } else {
        values.par_chunks_mut(block).enumerate().for_each(|(index, part)| work(index * block, part));
    }
}

/// Changes the rows of `x` in place, as [`change_rows`] does; `x` must lie in one piece and be nobody else's.
///
/// # Errors
/// When it does not lie in one piece.
pub fn in_place(x: Tensor, row: usize, work: impl Fn(usize, &mut [f32]) + Sync) -> Result<Tensor> {
    x.inplace_op1(&InPlace { row, work })?;
    Ok(x)
}

struct InPlace<F> {
    row: usize,
    work: F,
}

impl<F: Fn(usize, &mut [f32]) + Sync> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        "row by row"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("{} takes contiguous float32 values", self.name());
        };
        change_rows(&mut values[start..end], self.row, &self.work);
        Ok(())
    }
}

/// Partial sums side by side, so that the compiler may use vectors: the result does not depend on which vectors the processor has.
const LANES: usize = 16;

/// The sum of `values`.
#[inline(always)]
#[allow(clippy::inline_always)] // To be compiled for the vectors of whoever calls it.
fn sum(values: &[f32]) -> f32 {
    let (parts, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for part in parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += x;
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().sum::<f32>()
}

/// The sum of `(x - mean)^2` over `values`.
#[inline(always)]
#[allow(clippy::inline_always)]
fn sum_of_squares(values: &[f32], mean: f32) -> f32 {
    let (parts, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for part in parts {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += (x - mean) * (x - mean);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>()
}

/// Normalizes each row of `values` to mean 0 and variance 1, then scales and shifts: a layer norm.
#[multiversion(targets = "simd")]
pub fn normalize(values: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let n = weight.len() as f32;
    for row in values.chunks_exact_mut(weight.len()) {
        let mean = sum(row) / n;
        let variance = sum_of_squares(row, mean) / n;
        // A variance beyond float32 would make zeros of the row, without a word.
        let scale = if variance.is_finite() { 1.0 / (variance + eps).sqrt() } else { f32::NAN };
        for (x, (w, b)) in row.iter_mut().zip(weight.iter().zip(bias)) {
            *x = (*x - mean) * scale * w + b;
        }
    }
}

/// `scale x`
#[multiversion(targets = "simd")]
pub fn scale(values: &mut [f32], scale: f32) {
    for x in values {
        *x *= scale;
    }
}

/// `scale x + bias`
#[multiversion(targets = "simd")]
pub fn scale_and_add(values: &mut [f32], scale: f32, bias: &[f32]) {
    for (x, b) in values.iter_mut().zip(bias) {
        *x = *x * scale + b;
    }
}

/// `x + more`
#[multiversion(targets = "simd")]
pub fn add(values: &mut [f32], more: &[f32]) {
    values.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}

/// `gamma x + more` for rows as long as `gamma`.
#[multiversion(targets = "simd")]
pub fn scale_rows_and_add(values: &mut [f32], gamma: &[f32], more: &[f32]) {
    for (row, more) in values.chunks_exact_mut(gamma.len()).zip(more.chunks_exact(gamma.len())) {
        for ((x, more), gamma) in row.iter_mut().zip(more).zip(gamma) {
            *x = more + *x * gamma;
        }
    }
}
