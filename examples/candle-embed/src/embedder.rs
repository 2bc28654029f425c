//! MiniLM in candle: a sentence to a vector of length 1.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, DTYPE};
use tokenizers::Tokenizer;

use crate::Result;

/// The model as candle has it.
///
/// candle keeps tensors in vectors of its own, so it copies each once, from where it lies to there, and reads it in place until
/// then. Those copies it frees without wiping: only the end of the process makes sure of them.
pub(crate) struct Embedder {
    model: BertModel,
    tokenizer: Tokenizer,
}

impl Embedder {
    /// From a safetensors file that lies in memory, whoever's it is.
    pub(crate) fn from_safetensors(config: &[u8], tokenizer: &[u8], weights: &[u8]) -> Result<Self> {
        Self::new(config, tokenizer, VarBuilder::from_slice_safetensors(weights, DTYPE, &Device::Cpu)?)
    }

    /// From wherever `weights` has the tensors.
    pub(crate) fn new(config: &[u8], tokenizer: &[u8], weights: VarBuilder<'_>) -> Result<Self> {
        let config: Config = serde_json::from_slice(config)?;
        let mut tokenizer = Tokenizer::from_bytes(tokenizer)?;
        // Sentences go one by one: what is padded would only be masked again.
        tokenizer.with_padding(None);
        Ok(Self { model: BertModel::load(weights, &config)?, tokenizer })
    }

    /// The mean of the last layer over all tokens, scaled to length 1: what all-MiniLM-L6-v2 was trained for.
    pub(crate) fn embed(&self, sentence: &str) -> Result<Vec<f32>> {
        let tokens = self.tokenizer.encode(sentence, true)?;
        let row = |numbers: &[u32]| Tensor::new(numbers, &Device::Cpu)?.unsqueeze(0);
        let states = self.model.forward(&row(tokens.get_ids())?, &row(tokens.get_type_ids())?, None)?;
        let mean = states.mean(1)?.squeeze(0)?;
        let length = mean.sqr()?.sum_all()?.sqrt()?;
        Ok(mean.broadcast_div(&length)?.to_vec1()?)
    }
}
