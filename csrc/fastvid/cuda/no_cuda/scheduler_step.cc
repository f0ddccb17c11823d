#include "fastvid/cuda/scheduler_step.h"

#include "fastvid/cuda/device.h"

namespace fastvid::cuda {

void scheduler_step(const SchedulerStep& step, const SolverStep&, void*) {
  const DeviceGuard guard("scheduler_step", {&step.in[0]});
}

}  // namespace fastvid::cuda
