//! A pickle virtual machine that builds data and runs nothing.
//!
//! It knows the protocol-2 opcodes that `torch.save` writes for nested containers and tensors, the same set that
//! `torch.load(weights_only=True)` starts from (`torch/_weights_only_unpickler.py`), and three kinds of globals:
//! `collections.OrderedDict`, `torch._utils._rebuild_tensor_v2` and the storage classes. Every other opcode or global ends
//! the reading with its name. Objects live in one arena, at most one an opcode, so that sharing and cycles cost nothing.

use std::collections::HashMap;

use super::objects::{Found, Graph, Id, Items, Node, Storage, TensorView, global};

/// Longest key of a dict, in bytes.
const KEY: usize = 1024;
/// Most axes of a tensor.
const AXES: usize = 64;

/// Reads a pickle to its end.
pub(super) fn parse(bytes: &[u8]) -> Found<Graph> {
    let mut machine = Machine { bytes, at: 0, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    if machine.take(1)? != [0x80] {
        return Err("expected a pickle, found something else".into());
    }
    let version = machine.byte()?;
    if version != 2 {
        return Err(format!("pickle protocol {version} is not allowed: expected 2, torch.save's own"));
    }
    loop {
        let at = machine.at;
        let opcode = machine.byte()?;
        if opcode == b'.' {
            break;
        }
        machine.step(opcode).map_err(|e| format!("byte {at}: {e}"))?;
    }
    if machine.at != bytes.len() {
        return Err(format!("{} bytes follow the end of the pickle", bytes.len() - machine.at));
    }
    match (machine.stack.as_slice(), machine.marks.is_empty()) {
        (&[root], true) => Ok(Graph { nodes: machine.nodes, root }),
        (stack, _) => Err(format!("expected one object at the end, found {}", stack.len())),
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Stack heights at the open MARKs.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Found<()> {
        match opcode {
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'K' => {
                let value = self.byte()?.into();
                self.push(Node::Int(value));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?).into();
                self.push(Node::Int(value));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?).into();
                self.push(Node::Int(value));
            }
            0x8a => {
                let value = self.long()?;
                self.push(Node::Int(value));
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Node::Float(value));
            }
            b'X' => {
                let len = u32::from_le_bytes(self.array()?) as usize;
                let text = std::str::from_utf8(self.take(len)?).map_err(|_| "a string is not UTF-8")?;
                self.push(Node::Str(text.into()));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'}' => self.push(Node::Dict { items: Items::default(), ordered: false }),
            b')' => self.push(Node::Tuple(Vec::new())),
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.insert(0, self.pop()?);
                }
                self.push(Node::Tuple(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items));
            }
            b'a' | b'e' => {
                let new = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
                match self.top()? {
                    Node::List(items) => items.extend(new),
                    other => return Err(format!("APPEND to {}: expected a list", other.kind())),
                }
            }
            b's' | b'u' => {
                let new = if opcode == b'u' {
                    self.pop_mark()?
                } else {
                    let value = self.pop()?;
                    vec![self.pop()?, value]
                };
                self.set_items(&new)?;
            }
            b'q' | b'r' => {
                let key = if opcode == b'q' { self.byte()?.into() } else { u32::from_le_bytes(self.array()?) };
                let id = self.peek()?;
                self.memo.insert(key, id);
            }
            b'h' | b'j' => {
                let key = if opcode == b'h' { self.byte()?.into() } else { u32::from_le_bytes(self.array()?) };
                let id = *self.memo.get(&key).ok_or_else(|| format!("memo {key} was never stored"))?;
                self.stack.push(id);
            }
            b'c' => {
                let global = global(self.line()?, self.line()?)?;
                self.push(global);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Node::Storage(storage));
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let node = self.reduce(callee, arguments)?;
                self.push(node);
            }
            b'b' => {
                let state = self.pop()?;
                if !matches!(self.node(state), Node::Dict { .. }) {
                    return Err(format!("BUILD with {}: expected a dict of attributes", self.node(state).kind()));
                }
                match self.top()? {
                    // `_metadata` of a state_dict: module versions, not data
                    Node::Dict { ordered: true, .. } => {}
                    other => return Err(format!("BUILD of {} is not allowed: only an OrderedDict has attributes", other.kind())),
                }
            }
            other => return Err(format!("opcode {} is not allowed: only tensors and plain containers are read", name(other))),
        }
        Ok(())
    }

    /// The one "call": an empty OrderedDict, or the description of a tensor.
    fn reduce(&self, callee: Id, arguments: Id) -> Found<Node> {
        let Node::Tuple(arguments) = self.node(arguments) else {
            return Err(format!("REDUCE with {}: expected a tuple of arguments", self.node(arguments).kind()));
        };
        match self.node(callee) {
            Node::OrderedDictClass if arguments.is_empty() => Ok(Node::Dict { items: Items::default(), ordered: true }),
            Node::OrderedDictClass => Err("collections.OrderedDict with arguments is not allowed".into()),
            Node::RebuildTensor => {
                // storage, offset, shape, stride, requires_grad, backward_hooks
                let &[storage, offset, shape, stride, _, hooks] = arguments.as_slice() else {
                    return Err(format!("_rebuild_tensor_v2: expected 6 arguments, found {}", arguments.len()));
                };
                let Node::Storage(storage) = self.node(storage) else {
                    return Err(format!("_rebuild_tensor_v2: expected a storage, found {}", self.node(storage).kind()));
                };
                if !matches!(self.node(hooks), Node::Dict { items, .. } if items.len() == 0) {
                    return Err("_rebuild_tensor_v2: backward hooks are not allowed".into());
                }
                let offset = self.size(offset)?;
                let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
                if shape.len() != stride.len() {
                    return Err(format!("_rebuild_tensor_v2: shape {shape:?} and stride {stride:?} differ in length"));
                }
                Ok(Node::Tensor(TensorView { storage: storage.clone(), offset, shape, stride }))
            }
            other => Err(format!("calling {} is not allowed", other.kind())),
        }
    }

    /// A persistent id must be `("storage", class, key, location, number of values)`; the location does not matter.
    fn storage(&self, id: Id) -> Found<Storage> {
        let bad = |what: &str| Err(format!("persistent id: expected (\"storage\", class, key, location, size), found {what}"));
        let Node::Tuple(parts) = self.node(id) else { return bad(self.node(id).kind()) };
        let &[tag, class, key, location, len] = parts.as_slice() else { return bad(&format!("{} parts", parts.len())) };
        match (self.node(tag), self.node(class), self.node(key), self.node(location)) {
            (Node::Str(tag), Node::StorageClass(dtype), Node::Str(key), Node::Str(_)) if **tag == *"storage" => {
                Ok(Storage { dtype: *dtype, key: key.clone(), len: self.size(len)? })
            }
            (tag, class, key, _) => bad(&format!("({}, {}, {}, …)", tag.kind(), class.kind(), key.kind())),
        }
    }

    fn set_items(&mut self, new: &[Id]) -> Found<()> {
        if !new.len().is_multiple_of(2) {
            return Err("SETITEMS: a key without a value".into());
        }
        let mut pairs = Vec::with_capacity(new.len() / 2);
        for pair in new.chunks_exact(2) {
            match self.node(pair[0]) {
                Node::Str(key) if key.len() <= KEY => pairs.push((key.clone(), pair[1])),
                Node::Str(key) => return Err(format!("a dict's key has {} bytes: expected at most {KEY}", key.len())),
                other => return Err(format!("a dict's key is {}: expected a string", other.kind())),
            }
        }
        match self.top()? {
            Node::Dict { items, .. } => pairs.into_iter().for_each(|(key, value)| items.insert(key, value)),
            other => return Err(format!("SETITEM on {}: expected a dict", other.kind())),
        }
        Ok(())
    }

    fn size(&self, id: Id) -> Found<usize> {
        match self.node(id) {
            Node::Int(value) => usize::try_from(*value).map_err(|_| format!("expected a size, found {value}")),
            other => Err(format!("expected a size, found {}", other.kind())),
        }
    }

    fn sizes(&self, id: Id) -> Found<Vec<usize>> {
        match self.node(id) {
            Node::Tuple(items) if items.len() <= AXES => items.iter().map(|item| self.size(*item)).collect(),
            Node::Tuple(items) => Err(format!("expected at most {AXES} axes, found {}", items.len())),
            other => Err(format!("expected a tuple of sizes, found {}", other.kind())),
        }
    }

    fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
    }

    fn peek(&self) -> Found<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(|open| open.last()).copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Found<Id> {
        let id = self.peek()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&mut self) -> Found<&mut Node> {
        let id = self.peek()?;
        self.nodes.get_mut(id).ok_or_else(|| "the stack is empty".into())
    }

    fn pop_mark(&mut self) -> Found<Vec<Id>> {
        let mark = self.marks.pop().ok_or("there is no MARK")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, len: usize) -> Found<&'a [u8]> {
        let end = self.at.checked_add(len);
        let part = end.and_then(|end| self.bytes.get(self.at..end)).ok_or("the pickle is truncated")?;
        self.at += len;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Found<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// LONG1: up to eight bytes, little-endian, sign-extended.
    fn long(&mut self) -> Found<i64> {
        let len = self.byte()?.into();
        let raw = self.take(len)?;
        if len > 8 {
            return Err(format!("an integer of {len} bytes is not allowed: expected at most 8"));
        }
        let fill = if raw.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut bytes = [fill; 8];
        bytes[..len].copy_from_slice(raw);
        Ok(i64::from_le_bytes(bytes))
    }

    fn line(&mut self) -> Found<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or("the pickle is truncated")?;
        let line = self.take(len + 1)?;
        std::str::from_utf8(&line[..len]).map_err(|_| "a global's name is not UTF-8".into())
    }
}

/// Name of an opcode as Python's `pickletools` has it, for the ones that matter in a message.
fn name(opcode: u8) -> String {
    #[rustfmt::skip]
    const NAMES: [(u8, &str); 36] = [
        (b'0', "POP"), (b'1', "POP_MARK"), (b'2', "DUP"), (b'F', "FLOAT"), (b'I', "INT"), (b'L', "LONG"), (b'P', "PERSID"),
        (b'S', "STRING"), (b'T', "BINSTRING"), (b'U', "SHORT_BINSTRING"), (b'V', "UNICODE"), (b'd', "DICT"), (b'l', "LIST"),
        (b'g', "GET"), (b'p', "PUT"), (b'i', "INST"), (b'o', "OBJ"), (b'B', "BINBYTES"), (b'C', "SHORT_BINBYTES"),
        (0x80, "PROTO"), (0x81, "NEWOBJ"), (0x82, "EXT1"), (0x83, "EXT2"), (0x84, "EXT4"), (0x8b, "LONG4"),
        (0x8c, "SHORT_BINUNICODE"), (0x8d, "BINUNICODE8"), (0x8e, "BINBYTES8"), (0x8f, "EMPTY_SET"), (0x90, "ADDITEMS"),
        (0x91, "FROZENSET"), (0x92, "NEWOBJ_EX"), (0x93, "STACK_GLOBAL"), (0x94, "MEMOIZE"), (0x95, "FRAME"),
        (0x96, "BYTEARRAY8"),
    ];
    NAMES.iter().find(|(code, _)| *code == opcode).map_or_else(|| format!("0x{opcode:02x}"), |(_, name)| (*name).to_owned())
}
