//! An ONNX graph in the making (opset 18, onnx.proto of ONNX 1.14): a network draws its operations into it, one after another.

use candle_core::Tensor;
use prost::Message;

use crate::error::{Error, Result};
use crate::model::kernels::Weight;
use crate::model::site::Site;

/// Protocol buffers allow no larger file.
const MOST_BYTES: usize = (1 << 31) - 1;

/// Name of what an operation gives.
pub type Value = String;

/// What a quantizer draws at the sites of a network.
pub trait GraphTap {
    /// The operand of `site`, quantized; `x` has a batch of one picture.
    ///
    /// # Errors
    /// When it has no form in standard operators.
    fn activation(&mut self, graph: &mut Graph, site: Site, x: Value) -> Result<Value>;

    /// The weight `(C_out, C)` of the layer whose input is `site`.
    ///
    /// # Errors
    /// When it has no form in standard operators.
    fn weight(&mut self, graph: &mut Graph, site: Site, weight: &Weight) -> Result<Value>;
}

/// An attribute of an operation.
#[derive(Debug, Clone)]
pub enum Setting<'a> {
    /// An integer.
    Int(&'a str, i64),
    /// Several.
    Ints(&'a str, Vec<i64>),
    /// A number.
    Float(&'a str, f32),
}

/// Operations and constants so far.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    constants: Vec<TensorProto>,
    values: usize,
}

impl Graph {
    fn name(&mut self, what: &str) -> Value {
        self.values += 1;
        format!("{what}_{}", self.values)
    }

    fn constant(&mut self, what: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> Value {
        let name = self.name(what);
        let dims = shape.iter().map(|&d| d as i64).collect();
        self.constants.push(TensorProto { dims, data_type, name: name.clone(), raw_data });
        name
    }

    /// Constant floats of a shape.
    pub fn floats(&mut self, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Value {
        self.constant("floats", shape, 1, values.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    /// A constant float.
    pub fn float(&mut self, value: f32) -> Value {
        self.floats(&[], [value])
    }

    /// Constant integers in a row.
    pub fn integers(&mut self, values: &[i64]) -> Value {
        self.constant("integers", &[values.len()], 7, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant integer.
    pub fn integer(&mut self, value: i64) -> Value {
        self.constant("integer", &[], 7, value.to_le_bytes().into())
    }

    /// Constant bytes of a shape, under a name of their own.
    pub fn bytes(&mut self, what: &str, shape: &[usize], values: &[u8]) -> Value {
        self.constant(what, shape, 2, values.into())
    }

    /// A constant tensor.
    ///
    /// # Errors
    /// Only when candle fails.
    pub fn tensor(&mut self, tensor: &Tensor) -> Result<Value> {
        Ok(self.floats(tensor.dims(), tensor.flatten_all()?.to_vec1::<f32>()?))
    }

    /// An operation that gives one value.
    pub fn op(&mut self, operator: &str, inputs: &[&Value]) -> Value {
        self.op_with(operator, inputs, &[])
    }

    /// The same with settings.
    pub fn op_with(&mut self, operator: &str, inputs: &[&Value], settings: &[Setting]) -> Value {
        let mut given = self.ops(operator, inputs, settings, 1);
        given.pop().unwrap_or_default()
    }

    /// The parts of `x` along `axis`, of these sizes.
    pub fn split(&mut self, x: &Value, axis: i64, sizes: &[usize]) -> Vec<Value> {
        let lengths = self.integers(&sizes.iter().map(|&s| s as i64).collect::<Vec<_>>());
        self.ops("Split", &[x, &lengths], &[Setting::Int("axis", axis)], sizes.len())
    }

    /// Equal parts of `x` along `axis`.
    pub fn parts(&mut self, x: &Value, axis: i64, parts: usize) -> Vec<Value> {
        self.ops("Split", &[x], &[Setting::Int("axis", axis), Setting::Int("num_outputs", parts as i64)], parts)
    }

    /// Values one behind the other along `axis`.
    pub fn concat(&mut self, parts: &[Value], axis: i64) -> Value {
        match parts {
            [one] => one.clone(),
            parts => self.op_with("Concat", &parts.iter().collect::<Vec<_>>(), &[Setting::Int("axis", axis)]),
        }
    }

    /// The same values in another shape; 0 keeps a dimension.
    pub fn reshape(&mut self, x: &Value, shape: &[i64]) -> Value {
        let shape = self.integers(shape);
        self.op("Reshape", &[x, &shape])
    }

    /// Dimensions in another order.
    pub fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        self.op_with("Transpose", &[x], &[Setting::Ints("perm", order.into())])
    }

    /// `ReduceMin`, `ReduceMax` or `ReduceMean` over axes that stay with length 1.
    pub fn reduce(&mut self, operator: &str, x: &Value, axes: &[i64]) -> Value {
        let axes = self.integers(axes);
        self.op_with(operator, &[x, &axes], &[Setting::Int("keepdims", 1)])
    }

    fn ops(&mut self, operator: &str, inputs: &[&Value], settings: &[Setting], count: usize) -> Vec<Value> {
        let output: Vec<Value> = (0..count).map(|_| self.name(operator)).collect();
        let attribute = settings.iter().map(Attribute::of).collect();
        let input = inputs.iter().map(ToString::to_string).collect();
        let name = format!("node_{}", self.nodes.len());
        self.nodes.push(Node { input, output: output.clone(), name, op_type: operator.into(), attribute });
        output
    }

    /// The file: a model from `pixels` of a shape to `logits` of a shape.
    ///
    /// # Errors
    /// When it is too large for a file.
    pub fn finish(self, pixels: (&str, &[usize]), logits: (&Value, &[usize]), about: &[(&str, String)]) -> Result<Vec<u8>> {
        let Self { mut nodes, constants, .. } = self;
        let named = "logits".to_string();
        nodes.push(Node { input: vec![logits.0.clone()], output: vec![named.clone()], op_type: "Identity".into(), ..Node::default() });
        let model = ModelProto {
            ir_version: 8,
            producer_name: "igq".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(GraphProto {
                node: nodes,
                name: "igq".into(),
                initializer: constants,
                input: vec![ValueInfo::of(pixels.0, pixels.1)],
                output: vec![ValueInfo::of(&named, logits.1)],
            }),
            opset_import: vec![OperatorSet { domain: String::new(), version: 18 }],
            metadata_props: about.iter().map(|(key, value)| Entry { key: (*key).into(), value: value.clone() }).collect(),
        };
        if model.encoded_len() > MOST_BYTES {
            let found = format!("the ONNX graph has {} bytes, more than a file may have (2 GiB)", model.encoded_len());
            return Err(Error::content("the model", found, "export a smaller model; its quantized weights fit a safetensors file"));
        }
        Ok(model.encode_to_vec())
    }
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

impl Attribute {
    fn of(setting: &Setting) -> Self {
        match setting {
            Setting::Float(name, f) => Self { name: (*name).into(), f: *f, kind: 1, ..Self::default() },
            Setting::Int(name, i) => Self { name: (*name).into(), i: *i, kind: 2, ..Self::default() },
            Setting::Ints(name, ints) => Self { name: (*name).into(), ints: ints.clone(), kind: 7, ..Self::default() },
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

impl ValueInfo {
    fn of(name: &str, shape: &[usize]) -> Self {
        let dim = shape.iter().map(|&d| Dimension { dim_value: d as i64 }).collect();
        let tensor = TensorType { elem_type: 1, shape: Some(ShapeProto { dim }) };
        Self { name: name.into(), kind: Some(TypeProto { tensor_type: Some(tensor) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    dim_value: i64,
}
