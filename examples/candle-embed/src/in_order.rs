//! Layers for candle as they come. It asks for the embeddings first and then for one layer after the other, which is the order
//! in which a vault's layers are handed on: so it copies one while the next is still on its way.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Error, Shape, Tensor};
use candle_nn::{Init, VarBuilder};
use tokio::runtime::Handle;
use vault_enclave::{Failure, Layer, Loading, Model};

use crate::Result;
use crate::embedder::Embedder;

/// The layers of a model that is on its way.
pub(crate) struct InOrder {
    runtime: Handle,
    arrived: Mutex<Arrived>,
}

struct Arrived {
    loading: Loading,
    layers: Vec<Layer>,
}

impl InOrder {
    pub(crate) fn new(loading: Loading) -> Self {
        Self { runtime: Handle::current(), arrived: Mutex::new(Arrived { loading, layers: Vec::new() }) }
    }

    /// The model in candle. Waits for layers: not to be called where that would hold up others.
    pub(crate) fn embedder(&self) -> Result<Embedder> {
        let (config, tokenizer) = (self.file("config.json")?, self.file("tokenizer.json")?);
        let weights = VarBuilder::from_backend(Box::new(self), DType::F32, Device::Cpu);
        Embedder::new(&config, &tokenizer, weights)
    }

    /// The model in our memory, once all of it has passed.
    pub(crate) async fn finish(self) -> Result<Model> {
        let arrived = self.arrived.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(arrived.loading.finish().await?)
    }

    /// What is in the first layer that has it, as soon as that is there; `None` where no layer has.
    fn find<T>(&self, find: impl Fn(&Layer) -> Option<T>) -> std::result::Result<Option<T>, Failure> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // The newest first: that is the one that is asked for.
            if let Some(found) = arrived.layers.iter().rev().find_map(&find) {
                return Ok(Some(found));
            }
            match self.runtime.block_on(arrived.loading.next())? {
                Some(layer) => arrived.layers.push(layer),
                None => return Ok(None),
            }
        }
    }

    fn file(&self, name: &str) -> Result<Vec<u8>> {
        let find = |layer: &Layer| layer.files().find(|(path, _)| *path == name).map(|(_, bytes)| bytes.to_vec());
        self.find(find)?.ok_or_else(|| format!("the model has no {name}").into())
    }

    fn tensor(&self, name: &str) -> candle_core::Result<Tensor> {
        let find = |layer: &Layer| layer.tensors().find(|tensor| tensor.name() == name).map(copied);
        let found = self.find(find).map_err(Error::wrap)?;
        found.unwrap_or_else(|| Err(Error::CannotFindTensor { path: name.to_owned() }))
    }
}

/// A tensor that candle has for itself: the one copy.
fn copied(tensor: vault_enclave::Tensor<'_>) -> candle_core::Result<Tensor> {
    let dtype: DType = tensor.dtype().to_lowercase().parse().map_err(Error::wrap)?;
    let shape =
        tensor.shape().iter().map(|length| usize::try_from(*length)).collect::<std::result::Result<Vec<_>, _>>();
    Tensor::from_raw_buffer(tensor.bytes(), dtype, &shape.map_err(Error::wrap)?, &Device::Cpu)
}

impl candle_nn::var_builder::SimpleBackend for &InOrder {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if *tensor.shape() == shape {
            return Ok(tensor);
        }
        let (msg, got) = (format!("shape mismatch for {name}"), tensor.shape().clone());
        Err(Error::UnexpectedShape { msg, expected: shape, got })
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.tensor(name)?.to_device(device)?.to_dtype(dtype)
    }

    /// By what has come: to be sure that there is none would take all of the model.
    fn contains_tensor(&self, name: &str) -> bool {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.layers.iter().any(|layer| layer.tensors().any(|tensor| tensor.name() == name))
    }
}
