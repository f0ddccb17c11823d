// CPU kernels of inverse search. Pointers are valid, sizes are positive; see ops/inverse_search.h
// for the method. Every kernel gives the same bits on every instruction set.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/search.h"

FASTVID_DECLARE_KERNELS(
    // Rows [begin, end) of a plane from an image in [0, 1]; what is not a number counts as 0.
    void search_load_rows(const float* image, const search::Plane& plane, int64_t begin,
                          int64_t end);
    // Rows [begin, end) of the means of 2x2 pixels.
    void search_halve_rows(const search::Plane& fine, const search::Plane& coarse, int64_t begin,
                           int64_t end);
    // Descends from the coarser level's flow or from zero, for one row of patches.
    void search_patches(const search::Level& level, int64_t row);
    // Lets each patch of a row try zero (in the first round) and what its neighbours found.
    void propagate_patches(const search::Level& level, int64_t row, bool first_round);
    // Rows [begin, end) of the dense flow: the mean of the patches over each pixel, weighted by how
    // well each explains it.
    void densify_rows(const search::Level& level, int64_t begin, int64_t end);
    // Rows [begin, end) of a flow twice as large, bilinear, values doubled.
    void double_flow_rows(const search::Flow& coarse, const search::Flow& fine, int64_t begin,
                          int64_t end);)
