"""The door to nnU-Net: what Tandem calls of it to predict; one clear sentence where it is not installed."""

from pipeline.errors import UsageError

try:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
    from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import (
        LabelManager,
        convert_labelmap_to_one_hot,
        determine_num_input_channels,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
except ModuleNotFoundError as missing:
    raise UsageError(
        "E_EXTRA", f"Segmentation needs {missing.name}, got no such package: pip install 'tandem-imaging[segment]'."
    ) from missing

__all__ = [
    "ConfigurationManager",
    "LabelManager",
    "PlansManager",
    "compute_gaussian",
    "compute_steps_for_sliding_window",
    "convert_labelmap_to_one_hot",
    "determine_num_input_channels",
    "get_network_from_plans",
    "pad_nd_image",
    "remove_all_but_largest_component_from_segmentation",
]
