//! Integers, lists, sets and maps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Reader, Stored, Writer};
use crate::snapshot::SnapshotError;

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Stored for $type {
            fn store(&self, to: &mut Writer) {
                to.put(&self.to_be_bytes());
            }

            fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
                let bytes = from.take(size_of::<Self>())?;
                Ok(Self::from_be_bytes(bytes.try_into().expect("as many as were asked for")))
            }
        }
    )*};
}

integer!(u8, u32, u64);

impl Stored for usize {
    fn store(&self, to: &mut Writer) {
        (*self as u64).store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Self::try_from(u64::restore(from)?).map_err(|_| SnapshotError::Cut)
    }
}

impl Stored for bool {
    fn store(&self, to: &mut Writer) {
        u8::from(*self).store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        match u8::restore(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(SnapshotError::Malformed { what: "flag" }),
        }
    }
}

impl<const N: usize> Stored for [u8; N] {
    fn store(&self, to: &mut Writer) {
        to.put(self);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(from.take(N)?.try_into().expect("as many as were asked for"))
    }
}

impl<T: Stored> Stored for Option<T> {
    fn store(&self, to: &mut Writer) {
        self.is_some().store(to);
        if let Some(value) = self {
            value.store(to);
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        bool::restore(from)?.then(|| T::restore(from)).transpose()
    }
}

impl<T: Stored> Stored for Box<T> {
    fn store(&self, to: &mut Writer) {
        T::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        T::restore(from).map(Self::new)
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn store(&self, to: &mut Writer) {
        self.0.store(to);
        self.1.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok((A::restore(from)?, B::restore(from)?))
    }
}

/// Their number, then each.
macro_rules! list {
    ($type:ident $(: $bound:ident)?) => {
        impl<T: Stored $(+ $bound)?> Stored for $type<T> {
            fn store(&self, to: &mut Writer) {
                self.len().store(to);
                self.iter().for_each(|item| item.store(to));
            }

            fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
                (0..from.count()?).map(|_| T::restore(from)).collect()
            }
        }
    };
}

list!(Vec);
list!(VecDeque);
list!(BTreeSet: Ord);

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn store(&self, to: &mut Writer) {
        self.len().store(to);
        for (key, value) in self {
            key.store(to);
            value.store(to);
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        (0..from.count()?).map(|_| <(K, V)>::restore(from)).collect()
    }
}
