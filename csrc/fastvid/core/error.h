// The errors of the C++ side. The bindings turn each into its twin of python/fastvid/errors.py.
// Messages read `op: argument must be X, got Y`; the hint says the way out.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace fastvid {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, std::string hint = "")
      : std::runtime_error(message), hint_(std::move(hint)) {}
  const std::string& hint() const { return hint_; }

 private:
  std::string hint_;
};

// A wrong shape, value or range.
class InputError : public Error {
  using Error::Error;
};

// A wrong type or dtype.
class InputTypeError : public InputError {
  using InputError::InputError;
};

// A device call failed.
class DeviceError : public Error {
  using Error::Error;
};

// The device asked for is not there, or this build has no kernels for it.
class NoDeviceError : public DeviceError {
  using DeviceError::DeviceError;
};

}  // namespace fastvid
