//! What a pickle of `torch.save` is made of: dtypes, storages, views of them, containers and the allowed globals.

use std::collections::HashMap;
use std::rc::Rc;

pub(super) type Found<T> = Result<T, String>;
/// Place of an object in the arena.
pub(super) type Id = usize;

/// Element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    F32,
    F16,
    BF16,
    F64,
    I64,
    I32,
    U8,
    Bool,
}

impl Dtype {
    const STORAGES: [(&'static str, Self); 8] = [
        ("FloatStorage", Self::F32),
        ("HalfStorage", Self::F16),
        ("BFloat16Storage", Self::BF16),
        ("DoubleStorage", Self::F64),
        ("LongStorage", Self::I64),
        ("IntStorage", Self::I32),
        ("ByteStorage", Self::U8),
        ("BoolStorage", Self::Bool),
    ];

    /// Bytes a value.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Name of torch's storage class.
    pub(super) fn name(self) -> &'static str {
        Self::STORAGES.iter().find(|(_, dtype)| *dtype == self).map_or("", |(name, _)| name)
    }
}

/// A storage: entry `data/<key>` of the archive with `len` values.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    pub(super) key: Rc<str>,
    pub(super) len: usize,
}

/// A tensor as a view of a storage; `stride` has as many numbers as `shape`.
#[derive(Clone, Debug)]
pub(super) struct TensorView {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

impl TensorView {
    /// Number of values.
    pub(super) fn values(&self) -> Found<usize> {
        let product = self.shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size));
        product.ok_or_else(|| format!("tensor of shape {:?}: too large", self.shape))
    }

    /// Number of bytes that the values take.
    pub(super) fn bytes(&self) -> Found<u64> {
        Ok((self.values()? as u64).saturating_mul(self.storage.dtype.size() as u64))
    }
}

/// Entries of a dict in the order of insertion; a later value replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Items {
    order: Vec<(Rc<str>, Id)>,
    index: HashMap<Rc<str>, usize>,
}

impl Items {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, Id)> {
        self.order.iter().map(|(key, id)| (&**key, *id))
    }

    pub(super) fn insert(&mut self, key: Rc<str>, id: Id) {
        match self.index.get(&key) {
            Some(&at) => self.order[at].1 = id,
            None => {
                self.index.insert(key.clone(), self.order.len());
                self.order.push((key, id));
            }
        }
    }
}

/// An object of the pickle.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    /// `ordered` tells an OrderedDict, which alone may carry attributes.
    Dict {
        items: Items,
        ordered: bool,
    },
    OrderedDictClass,
    RebuildTensor,
    StorageClass(Dtype),
    Storage(Storage),
    Tensor(TensorView),
}

impl Node {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict { .. } => "a dict",
            Self::OrderedDictClass => "collections.OrderedDict",
            Self::RebuildTensor => "torch._utils._rebuild_tensor_v2",
            Self::StorageClass(_) => "a storage class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

/// The objects of a pickle.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
}

impl Graph {
    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::None)
    }
}

/// The allowed globals.
pub(super) fn global(module: &str, name: &str) -> Found<Node> {
    let storage = Dtype::STORAGES.iter().find(|(storage, _)| module == "torch" && *storage == name);
    match (module, name, storage) {
        ("collections", "OrderedDict", _) => Ok(Node::OrderedDictClass),
        ("torch._utils", "_rebuild_tensor_v2", _) => Ok(Node::RebuildTensor),
        (_, _, Some((_, dtype))) => Ok(Node::StorageClass(*dtype)),
        _ => Err(format!("global {module}.{name} is not allowed: only tensors and plain containers are read")),
    }
}
