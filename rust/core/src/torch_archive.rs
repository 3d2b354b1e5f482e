//! Restricted reader of torch's zip archives (`torch.save` since torch 1.6): tensors and plain containers, nothing else.
//!
//! A file is a zip of `<name>/data.pkl` (a protocol-2 pickle), `<name>/data/<key>` (one stored, uncompressed entry a
//! storage) and `<name>/byteorder`. The pickle is walked by a virtual machine (`pickle`) that knows the opcodes and the
//! globals which `torch.save` of nested dicts, lists and tensors needs; every other one is an error that names it. There
//! is no way from a file to code: a "call" only ever makes an empty dict or the description of a tensor.
//!
//! What a file declares is checked against what it holds: entries against the file's length, storages against their
//! entries, shapes and strides against storages, nesting and object count against fixed limits. Read for `conds.pt` of
//! resemble-ai/chatterbox (`src/chatterbox/tts_turbo.py` at 5de7a54) and for resemble-perth's `perth_net_250000.pth.tar`.

mod container;
mod objects;
mod pickle;
mod tensor;

use std::path::Path;

pub use tensor::{Data, Tensor};

use self::container::Container;
use self::objects::{Graph, Node};
use crate::{Error, Result};

/// Deepest nesting of containers.
const DEPTH: usize = 64;
/// Most values in one file (containers and what they hold).
const VALUES: usize = 1 << 20;

/// What a file can hold. Tuples are read as lists, `collections.OrderedDict` as a dict.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A dict in the file's order; keys are strings, each once.
    Dict(Vec<(String, Value)>),
    /// A list or a tuple.
    List(Vec<Value>),
    /// A tensor, contiguous whatever its strides were.
    Tensor(Tensor),
    /// A string.
    Str(String),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// `None`.
    None,
}

impl Value {
    /// The entry `key` of a dict; `None` when there is none or this is not a dict.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Dict(items) => items.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// Reads the archive at `path`.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Checkpoint`] naming the file and the finding when it is not a
/// complete torch archive, is of torch's old non-zip format, or holds an opcode, a global, a call, a dtype or a size that
/// is not allowed.
pub fn read(path: impl AsRef<Path>) -> Result<Value> {
    let path = path.as_ref();
    let mut container = Container::open(path)?;
    let fail = |detail: String| Error::checkpoint(path, detail);
    let pickle = container.pickle().map_err(fail)?;
    let graph = pickle::parse(&pickle).map_err(|e| fail(format!("data.pkl: {e}")))?;
    let mut reader = Reader { graph: &graph, budget: container.budget(), container, values: 0 };
    reader.value(graph.root, 0).map_err(fail)
}

/// Turns the pickle's object graph (which may share nodes, or even contain itself) into a tree.
struct Reader<'a> {
    graph: &'a Graph,
    container: Container,
    values: usize,
    budget: u64,
}

impl Reader<'_> {
    fn value(&mut self, id: usize, depth: usize) -> std::result::Result<Value, String> {
        self.values += 1;
        if self.values > VALUES {
            return Err(format!("more than {VALUES} values"));
        }
        if depth > DEPTH {
            return Err(format!("containers are nested deeper than {DEPTH}"));
        }
        Ok(match self.graph.node(id) {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Float(value) => Value::Float(*value),
            Node::Str(value) => {
                self.spend(value.len() as u64)?;
                Value::Str(value.to_string())
            }
            Node::List(items) | Node::Tuple(items) => {
                Value::List(items.iter().map(|item| self.value(*item, depth + 1)).collect::<std::result::Result<_, _>>()?)
            }
            Node::Dict { items, .. } => {
                let mut entries = Vec::with_capacity(items.len());
                for (key, item) in items.entries() {
                    self.spend(key.len() as u64)?;
                    entries.push((key.to_owned(), self.value(item, depth + 1).map_err(|e| under(key, e))?));
                }
                Value::Dict(entries)
            }
            Node::Tensor(description) => {
                self.spend(description.bytes()?).map_err(|e| format!("tensor of shape {:?}: {e}", description.shape))?;
                let little = self.container.little_endian;
                let storage = self.container.storage(&description.storage)?;
                Value::Tensor(tensor::gather(description, storage, little)?)
            }
            other => return Err(format!("{} stands where a value is expected", other.kind())),
        })
    }

    /// Takes `bytes` off what this file's values may occupy in memory.
    fn spend(&mut self, bytes: u64) -> std::result::Result<(), String> {
        self.budget =
            self.budget.checked_sub(bytes).ok_or("the values take more memory than a file of this length can ask for")?;
        Ok(())
    }
}

/// Prefixes `error` with the dict key that it was found below, once per level, as a path.
fn under(key: &str, error: String) -> String {
    match error.strip_prefix("in ") {
        Some(rest) => format!("in {key:?} / {rest}"),
        None => format!("in {key:?}: {error}"),
    }
}
