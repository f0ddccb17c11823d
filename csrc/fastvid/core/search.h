// What the CPU and the CUDA version of inverse search share: the numbers of the method, and the
// memory it works in. Plain data: kernels include this.
#pragma once

#include <cstdint>

namespace fastvid::search {

constexpr int kPatchSize = 8;
// Planes of the pyramid repeat their border this many times on each side, so that a patch that
// stands up to its own size outside reads valid memory.
constexpr int kPlanePadding = 16;

// Added to the diagonal of the Hessian: flat patches stay where they start.
constexpr float kDamping = 4.0f;
// A step below this many pixels (squared) is the last.
constexpr float kSmallStep = 0.03f * 0.03f;
// A patch that has gone further than this (pixels squared) stops.
constexpr float kFar = 1.0f * kPatchSize * kPatchSize;
// A motion below kStillRange pixels that explains no more than this share of the difference is
// noise: the patch stands still.
constexpr float kStillShare = 0.6f;
constexpr float kStillRange = 0.5f;
// Another flow replaces the patch's own if it costs less than this share of it, less a sum over the
// patch; flows closer than this many pixels (squared) are not tried.
constexpr float kNeighbourShare = 0.8f;
constexpr float kZeroShare = 0.33f;
constexpr float kSlack = 64.0f;
constexpr float kApart = 1.0f;
// How often patches try what their neighbours found.
constexpr int kRounds = 2;

// A padded plane; data is its pixel (0, 0), values are in [0, 255].
struct Plane {
  float* data;
  int64_t width, height, pitch;
};

// A dense flow: dx and dy of every pixel, rows `width` apart.
struct Flow {
  float* dx;
  float* dy;
  int64_t width, height;
};

// The flow of each patch, its cost (the sum of squared differences without their mean), and whether
// the last pass changed it (not 0).
struct Grid {
  float* dx;
  float* dy;
  float* cost;
  float* changed;
};

// One direction of one level: patches of `from`, `stride` apart (the last ones end at the border),
// are searched in `to`.
struct Level {
  Plane from, to;
  Flow coarse;  // dx is null on the coarsest level
  int64_t columns, rows;
  int stride, iterations;
  Grid found;       // what a pass reads
  Grid propagated;  // what it writes
  Flow flow;        // the dense result
  float* weights;   // scratch of the CPU, as large as one plane of flow
};

}  // namespace fastvid::search
