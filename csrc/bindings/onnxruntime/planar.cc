#include "fastvid/ops/planar.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

const Op kRgbToPlanar{{.name = "RgbToPlanar",
                       .inputs = {{"frames", DType::kUint8}},
                       .outputs = {{DType::kFloat32}},
                       .compute = [](const Call& call) {
                         const Tensor frames = call.input(0);
                         const Tensor out = call.output(rgb_to_planar_output(frames));
                         rgb_to_planar(frames, out, call.executor());
                       }}};

const Op kPlanarToRgb{{.name = "PlanarToRgb",
                       .inputs = {{"x", DType::kFloat32}},
                       .outputs = {{DType::kUint8}},
                       .compute = [](const Call& call) {
                         const Tensor x = call.input(0);
                         const Tensor out = call.output(planar_to_rgb_output(x));
                         planar_to_rgb(x, out, call.executor());
                       }}};

}  // namespace
}  // namespace fastvid::onnxruntime
