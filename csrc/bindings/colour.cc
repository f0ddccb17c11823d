#include "fastvid/ops/colour.h"

#include <string>

#include "array.h"
#include "fastvid/core/error.h"
#include "module.h"

namespace fastvid::python {
namespace {

struct Choice {
  const char* name;
  int value;
};
constexpr Choice kMatrices[] = {{"bt601", static_cast<int>(YuvMatrix::kBt601)},
                                {"bt709", static_cast<int>(YuvMatrix::kBt709)},
                                {"bt2020", static_cast<int>(YuvMatrix::kBt2020)}};
// The value holds shift_x and shift_y.
constexpr Choice kSubsamplings[] = {{"420", 3}, {"422", 1}, {"444", 0}};
constexpr Choice kLocations[] = {{"left", static_cast<int>(ChromaLocation::kLeft)},
                                 {"center", static_cast<int>(ChromaLocation::kCenter)},
                                 {"topleft", static_cast<int>(ChromaLocation::kTopLeft)},
                                 {"top", static_cast<int>(ChromaLocation::kTop)},
                                 {"bottomleft", static_cast<int>(ChromaLocation::kBottomLeft)},
                                 {"bottom", static_cast<int>(ChromaLocation::kBottom)}};
constexpr Choice kLayouts[] = {{"NHWC", static_cast<int>(RgbLayout::kInterleaved)},
                               {"NCHW", static_cast<int>(RgbLayout::kPlanar)}};

std::string type_name(const py::handle& object) {
  return py::str(py::type::of(object).attr("__name__"));
}

template <size_t N>
int choose(const char* op, const char* name, const py::handle& object, const Choice (&choices)[N]) {
  const std::string subject = std::string(op) + ": " + name + " must be ";
  if (!py::isinstance<py::str>(object)) {
    throw InputTypeError(subject + "a str, got " + type_name(object));
  }
  std::string allowed;
  for (size_t i = 0; i < N; ++i) {
    if (PyUnicode_CompareWithASCIIString(object.ptr(), choices[i].name) == 0) {
      return choices[i].value;
    }
    allowed += i == 0 ? "" : i + 1 == N ? " or " : ", ";
    allowed += "'" + std::string(choices[i].name) + "'";
  }
  throw InputError(subject + allowed + ", got " + std::string(py::repr(object)));
}

YuvFormat format_of(const char* op, const py::object& matrix, const py::object& full_range,
                    const py::object& bit_depth, const py::object& subsampling,
                    const py::object& chroma_location) {
  YuvFormat format;
  format.matrix = static_cast<YuvMatrix>(choose(op, "matrix", matrix, kMatrices));
  if (!py::isinstance<py::bool_>(full_range)) {
    throw InputTypeError(std::string(op) + ": full_range must be a bool, got " +
                         type_name(full_range));
  }
  format.full_range = full_range.cast<bool>();
  if (!py::isinstance<py::int_>(bit_depth) || py::isinstance<py::bool_>(bit_depth)) {
    throw InputTypeError(std::string(op) + ": bit_depth must be an int, got " +
                         type_name(bit_depth));
  }
  if (!bit_depth.equal(py::int_(8)) && !bit_depth.equal(py::int_(10))) {
    throw InputError(std::string(op) + ": bit_depth must be 8 or 10, got " +
                     std::string(py::str(bit_depth)));
  }
  format.bit_depth = bit_depth.cast<int>();
  const int shifts = choose(op, "subsampling", subsampling, kSubsamplings);
  format.shift_x = shifts & 1;
  format.shift_y = shifts >> 1;
  format.location =
      static_cast<ChromaLocation>(choose(op, "chroma_location", chroma_location, kLocations));
  return format;
}

py::object py_yuv_to_rgb(const py::object& y, const py::object& u, const py::object& v,
                         const py::object& matrix, const py::object& full_range,
                         const py::object& bit_depth, const py::object& subsampling,
                         const py::object& chroma_location, const py::object& layout, bool wide,
                         const py::object& out, int threads, const py::object& stream) {
  constexpr const char* op = "yuv_to_rgb";
  Call call(op, stream);
  const YuvFormat format =
      format_of(op, matrix, full_range, bit_depth, subsampling, chroma_location);
  auto wanted = static_cast<RgbLayout>(choose(op, "layout", layout, kLayouts));
  if (wide && wanted == RgbLayout::kInterleaved) wanted = RgbLayout::kWide;
  const YuvTensors yuv{call.input("y", y, Layout::kRows), call.input("u", u, Layout::kRows),
                       call.input("v", v, Layout::kRows)};
  const Tensor expected = yuv_to_rgb_output(yuv, format, wanted);
  Output result = call.output(out, expected);
  require_dtype(op, result.tensor, expected.dtype);
  call.run(threads, [&](const Executor& e) { yuv_to_rgb(yuv, result.tensor, format, e); });
  return result.object;
}

py::tuple py_rgb_to_yuv(const py::object& rgb, const py::object& matrix,
                        const py::object& full_range, const py::object& bit_depth,
                        const py::object& subsampling, const py::object& chroma_location,
                        const py::object& out_y, const py::object& out_u, const py::object& out_v,
                        int threads, const py::object& stream) {
  constexpr const char* op = "rgb_to_yuv";
  Call call(op, stream);
  const YuvFormat format =
      format_of(op, matrix, full_range, bit_depth, subsampling, chroma_location);
  const Tensor in = call.input("rgb", rgb);
  const YuvTensors expected = rgb_to_yuv_output(in, format);
  Output y = call.output(out_y, expected.y, Layout::kRows);
  Output u = call.output(out_u, expected.u, Layout::kRows);
  Output v = call.output(out_v, expected.v, Layout::kRows);
  const YuvTensors planes{y.tensor, u.tensor, v.tensor};
  call.run(threads, [&](const Executor& e) { rgb_to_yuv(in, planes, format, e); });
  return py::make_tuple(y.object, u.object, v.object);
}

}  // namespace

void register_colour(py::module_& m) {
  m.def("yuv_to_rgb", &py_yuv_to_rgb, py::arg("y"), py::arg("u"), py::arg("v"), py::arg("matrix"),
        py::arg("full_range"), py::arg("bit_depth"), py::arg("subsampling"),
        py::arg("chroma_location"), py::arg("layout"), py::arg("wide"), py::arg("out"),
        py::arg("threads"), py::arg("stream"));
  m.def("rgb_to_yuv", &py_rgb_to_yuv, py::arg("rgb"), py::arg("matrix"), py::arg("full_range"),
        py::arg("bit_depth"), py::arg("subsampling"), py::arg("chroma_location"), py::arg("out_y"),
        py::arg("out_u"), py::arg("out_v"), py::arg("threads"), py::arg("stream"));
}

}  // namespace fastvid::python
