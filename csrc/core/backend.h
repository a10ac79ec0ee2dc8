// THE SEAM: what a device has to do for the rest of the library. Everything above it is the same on
// every device; every call carries a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/program.h"

namespace fastmlp {

// Where the time of a run went: for each step, member of the team and record, the seconds that the
// member worked on it, and waited for the others before.
struct Profile {
  int members = 1;
  std::vector<float> working, waiting;
};

struct Launch {
  void* const* buffers = nullptr;  // by buffer number; device memory
  std::int64_t rows = 0;           // of the batch
  std::int64_t total_rows = 0;     // that Gather draws from
  std::int64_t repeat = 1;         // steps; the state in `step_state` moves from one to the next
  void* stream = nullptr;
  Profile* profile = nullptr;  // to be filled: all members run all steps, and clocks are read
};

// A program made ready for one device. Running it allocates nothing that outlives the call.
class Executable {
 public:
  virtual ~Executable() = default;
  virtual void run(const Launch& launch) = 0;
  virtual const Program& program() const = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;

  // The row stride, in elements, that suits this device for a matrix of `cols` columns.
  virtual std::int64_t leading_dimension(std::int64_t cols, DType dtype) const = 0;

  // Whether sums may be taken in parts: those over a batch (BatchParts), and a product's halves.
  virtual bool takes_parts() const { return false; }

  // What products can be computed in, beside full precision.
  virtual std::vector<Precision> precisions() const { return {}; }

  virtual std::unique_ptr<Executable> compile(Program program) = 0;

  // Copies device memory to the host, after all that the stream holds.
  virtual void read(void* host, const void* device, std::size_t bytes, void* stream) = 0;
};

// A backend in another extension module is handed over as a capsule of this name; the number
// changes with this file or anything that it includes.
constexpr const char* backend_capsule = "fastmlp.Backend.5";

}  // namespace fastmlp
