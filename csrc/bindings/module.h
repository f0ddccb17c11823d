// One function per family of ops; module.cc calls each.
#pragma once

#include <pybind11/pybind11.h>

namespace fastvid::python {

void register_attention(pybind11::module_& m);
void register_colour(pybind11::module_& m);
void register_device_array(pybind11::module_& m);
void register_downscale(pybind11::module_& m);
void register_inverse_search(pybind11::module_& m);
void register_linear(pybind11::module_& m);
void register_luma(pybind11::module_& m);
void register_planar(pybind11::module_& m);
void register_qk_norm_rope(pybind11::module_& m);
void register_randn(pybind11::module_& m);
void register_scheduler_step(pybind11::module_& m);
void register_softmax_splat(pybind11::module_& m);
void register_temporal_attention(pybind11::module_& m);
void register_warp(pybind11::module_& m);
void register_warp_blend(pybind11::module_& m);

}  // namespace fastvid::python
