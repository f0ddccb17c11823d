#include "fastvid/ops/warp.h"

#include "array.h"
#include "module.h"

namespace fastvid::python {
namespace {

// `images` is a tuple, `outs` another of as many; each of the latter may be None.
py::tuple py_warp(const py::tuple& images, const py::object& flow, bool zeros, bool channels_last,
                  const py::tuple& outs, int threads, const py::object& stream) {
  static constexpr const char* kNames[2][WarpArgs::kMaxImages] = {
      {"image[0]", "image[1]", "image[2]", "image[3]", "image[4]", "image[5]", "image[6]",
       "image[7]"},
      {"out[0]", "out[1]", "out[2]", "out[3]", "out[4]", "out[5]", "out[6]", "out[7]"}};
  Call call("warp", stream);
  WarpArgs args{.count = static_cast<int>(images.size()),
                .padding = zeros ? Padding::kZeros : Padding::kBorder,
                .layout = channels_last ? PixelLayout::kChannelsLast : PixelLayout::kChannelsFirst};
  const bool one = args.count == 1;
  for (int i = 0; i < args.count; ++i) {
    args.images[i] = call.input(one ? "image" : kNames[0][i], images[i]);
  }
  args.flow = call.input("flow", flow);
  Tensor tensors[WarpArgs::kMaxImages];
  py::tuple results(args.count);
  for (int i = 0; i < args.count; ++i) {
    Tensor expected = warp_output(args, i);
    expected.name = one ? "out" : kNames[1][i];
    Output result = call.output(outs[i], expected);
    tensors[i] = result.tensor;
    results[i] = result.object;
  }
  call.run(threads, [&](const Executor& e) { warp(args, tensors, e); });
  return results;
}

}  // namespace

void register_warp(py::module_& m) {
  m.def("warp", &py_warp, py::arg("images"), py::arg("flow"), py::arg("zeros"),
        py::arg("channels_last"), py::arg("outs"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
