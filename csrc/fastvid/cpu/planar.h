// CPU kernels of ops/planar.h. They assume valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

// `plane` is the distance between the channels of the planar side, in elements.
FASTVID_DECLARE_KERNELS(
    void rgb_to_planar(const uint8_t* rgb, float* planes, int64_t plane, int64_t pixels);
    void wide_rgb_to_planar(const uint16_t* rgb, float* planes, int64_t plane, int64_t pixels);
    void planar_to_rgb(const float* planes, int64_t plane, uint8_t* rgb, int64_t pixels);
    void planar_to_wide_rgb(const float* planes, int64_t plane, uint16_t* rgb, int64_t pixels);)
