//! Where training runs: the configured devices of texts and Ranker, chosen once at start.

use burn::tensor::Device;

use crate::config::DeviceChoice;

/// The configured device and its name for logs and `/v1/status`.
#[derive(Debug, Clone)]
pub struct ChosenDevice {
    /// Without autodiff.
    pub device: Device,
    /// `flex` or `wgpu`.
    pub name: &'static str,
}

/// Why a device cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The binary was built without it.
    #[error("train.device is \"wgpu\", but this binary was built without the feature wgpu")]
    NotBuilt,
    /// Opening it panicked inside the driver stack.
    #[error("train.device is \"wgpu\", but no Vulkan, Metal or DX12 adapter could be opened")]
    NoAdapter,
}

/// Opens the configured device. `auto` takes a GPU only where a real card is found.
///
/// # Errors
/// `wgpu` was asked for and cannot be had.
pub fn choose(choice: DeviceChoice) -> Result<ChosenDevice, DeviceError> {
    match choice {
        DeviceChoice::Flex => Ok(flex()),
        DeviceChoice::Wgpu => open_wgpu(),
        DeviceChoice::Auto if has_gpu() => open_wgpu().or_else(|_| Ok(flex())), // auto promises no GPU
        DeviceChoice::Auto => Ok(flex()),
    }
}

/// Where the Ranker learns and scores, texts being embedded on `texts`.
/// `auto` keeps it on the CPU beside a card too: at the sizes of the default configuration the full step by hand is
/// faster there, while texts gain by the card (`docs/benchmarks/gpu.md`).
#[must_use]
pub fn of_ranker(choice: DeviceChoice, texts: &ChosenDevice) -> ChosenDevice {
    match choice {
        DeviceChoice::Auto => flex(),
        DeviceChoice::Flex | DeviceChoice::Wgpu => texts.clone(),
    }
}

fn flex() -> ChosenDevice {
    ChosenDevice {
        device: Device::flex(),
        name: "flex",
    }
}

#[cfg(feature = "wgpu")]
fn open_wgpu() -> Result<ChosenDevice, DeviceError> {
    use burn::tensor::{DeviceKind, Tensor};
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let probe = device.clone();
    // The driver stack panics instead of returning where there is no adapter.
    let opened = std::panic::catch_unwind(move || {
        Tensor::<1>::ones([1], &probe)
            .into_data()
            .try_into_vec::<f32>()
    });
    match opened {
        Ok(Ok(values)) if values == [1.0] => Ok(ChosenDevice {
            device,
            name: "wgpu",
        }),
        _ => Err(DeviceError::NoAdapter),
    }
}

#[cfg(not(feature = "wgpu"))]
fn open_wgpu() -> Result<ChosenDevice, DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// A card on a bus; software adapters report none.
#[cfg(feature = "wgpu")]
fn has_gpu() -> bool {
    std::panic::catch_unwind(|| !Device::enumerate_physical().is_empty()).unwrap_or(false)
}

#[cfg(not(feature = "wgpu"))]
fn has_gpu() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_auto_keeps_the_ranker_on_the_cpu_beside_a_card() {
        let card = ChosenDevice {
            device: Device::flex(),
            name: "wgpu",
        };
        let name = |choice| of_ranker(choice, &card).name;
        assert_eq!(name(DeviceChoice::Auto), "flex");
        assert_eq!(name(DeviceChoice::Wgpu), "wgpu");
    }
}
