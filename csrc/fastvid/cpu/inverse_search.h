// CPU kernels of inverse search. Pointers are valid, sizes are positive; see ops/inverse_search.h
// for the method. Every kernel gives the same bits on every instruction set.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

namespace fastvid::cpu {

constexpr int kPatchSize = 8;
// Planes of the pyramid repeat their border this many times on each side, so that a patch that
// stands up to its own size outside reads valid memory.
constexpr int kPlanePadding = 16;

// A padded plane; data is its pixel (0, 0), values are in [0, 255].
struct SearchPlane {
  float* data;
  int64_t width, height, pitch;
};

// A dense flow: dx and dy of every pixel, rows `width` apart.
struct SearchFlow {
  float* dx;
  float* dy;
  int64_t width, height;
};

// The flow of each patch, its cost (the sum of squared differences without their mean), and whether
// the last pass changed it (not 0).
struct SearchGrid {
  float* dx;
  float* dy;
  float* cost;
  float* changed;
};

// One direction of one level: patches of `from`, `stride` apart (the last ones end at the border),
// are searched in `to`.
struct SearchLevel {
  SearchPlane from, to;
  SearchFlow coarse;  // dx is null on the coarsest level
  int64_t columns, rows;
  int stride, iterations;
  SearchGrid found;       // after the descent
  SearchGrid propagated;  // after the exchange with the neighbours
  SearchFlow flow;        // the dense result
  float* weights;         // scratch, as large as one plane of flow
};

}  // namespace fastvid::cpu

FASTVID_DECLARE_KERNELS(
    // Rows [begin, end) of a plane from an image in [0, 1]; what is not a number counts as 0.
    void search_load_rows(const float* image, const SearchPlane& plane, int64_t begin, int64_t end);
    // Rows [begin, end) of the means of 2x2 pixels.
    void search_halve_rows(const SearchPlane& fine, const SearchPlane& coarse, int64_t begin,
                           int64_t end);
    // Descends from the coarser level's flow or from zero, for one row of patches.
    void search_patches(const SearchLevel& level, int64_t row);
    // Lets each patch of a row try zero (in the first round) and what its neighbours found.
    void propagate_patches(const SearchLevel& level, int64_t row, bool first_round);
    // Rows [begin, end) of the dense flow: the mean of the patches over each pixel, weighted by how
    // well each explains it.
    void densify_rows(const SearchLevel& level, int64_t begin, int64_t end);
    // Rows [begin, end) of a flow twice as large, bilinear, values doubled.
    void double_flow_rows(const SearchFlow& coarse, const SearchFlow& fine, int64_t begin,
                          int64_t end);)
