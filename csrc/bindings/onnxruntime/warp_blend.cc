#include "fastvid/ops/warp_blend.h"

#include "op.h"

namespace fastvid::onnxruntime {
namespace {

// Attribute `output_uint8`: 1 for uint8 (N, H, W, 3) instead of the images' dtype (N, 3, H, W).
const Op kWarpBlend{
    {.name = "WarpBlend",
     .inputs = {{"image0", kAnyDType},
                {"image1", kAnyDType},
                {"flow", DType::kFloat32},
                {"mask", DType::kFloat32},
                {"residual", kAnyDType, true}},
     .outputs = {{kAnyDType, "output_uint8", DType::kUint8}},
     .attributes = {{"output_uint8", 0}},
     .compute = [](const Call& call) {
       const WarpBlendArgs args{.image0 = call.input(0),
                                .image1 = call.input(1),
                                .flow = call.input(2),
                                .mask = call.input(3),
                                .residual = call.input(4)};
       const DType dtype = call.integer("output_uint8") != 0 ? DType::kUint8 : args.image0.dtype;
       warp_blend(args, call.output(warp_blend_output(args, dtype)), call.executor());
     }}};

}  // namespace
}  // namespace fastvid::onnxruntime
