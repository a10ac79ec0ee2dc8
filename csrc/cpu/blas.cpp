// Opens the BLAS, has it take the kernels that suit this CPU, and calls it.
#include "cpu/blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <type_traits>

#include "cpu/features.h"

namespace fastmlp::cpu {
namespace {

// The version in OpenBLAS's description of itself, such as "OpenBLAS 0.3.34 DYNAMIC_ARCH Haswell".
std::string second_word(const char* text) {
  std::istringstream words(text);
  std::string word;
  words >> word >> word;
  return word;
}

#ifdef FASTMLP_VENDORED_BLAS

// Sets an environment variable, and puts back what was there. The environment belongs to the whole
// process and has no lock that others heed: a thread in getenv or setenv at this moment is a race.
// OpenBLAS leaves no other way: it reads its variables while it is loaded, and never again.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value, /*overwrite=*/1);
  }
  ~ScopedVariable() {
    if (old_) {
      setenv(name_, old_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> old_;
};

// The fastest core for this CPU; nullptr: OpenBLAS knows better. Left alone, it takes Zen 5 in some
// virtual machines for something older (its issue 6029), and on Zen 4 runs the kernels for a full
// 512 bits, where Haswell's are 5% faster in large products and 25% in a strip of 64 rows.
// Cooperlake and later cores add nothing for float32, and the vendored build has no Zen: that is
// Haswell's.
const char* fastest_core() {
  switch (widest_instruction_set()) {
    case InstructionSet::avx512: return has_half_width_avx512() ? "Haswell" : "SkylakeX";
    case InstructionSet::avx2: return "Haswell";
    default: return nullptr;
  }
}

InstructionSet instruction_set_of(const std::string& core) {
  for (const char* wide : {"SkylakeX", "Cooperlake", "SapphireRapids"}) {
    if (core == wide) return InstructionSet::avx512;
  }
  for (const char* medium : {"Haswell", "Zen", "Excavator"}) {
    if (core == medium) return InstructionSet::avx2;
  }
  return InstructionSet::baseline;
}

// The path of the library beside the file that this code was loaded from: in an editable install
// the Python files are elsewhere.
std::string vendored_path() {
  Dl_info self;
  if (!dladdr(reinterpret_cast<const void*>(&vendored_path), &self)) return FASTMLP_VENDORED_BLAS;
  const std::string path = self.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + FASTMLP_VENDORED_BLAS;
}

template <class Function>
Function symbol(void* library, const char* name) {
  void* address = dlsym(library, name);
  if (!address) {
    throw std::runtime_error(std::string("BLAS: " FASTMLP_VENDORED_BLAS " has no ") + name +
                             "; it is not the file that fastmlp was built with");
  }
  return reinterpret_cast<Function>(address);
}

Blas open() {
  Blas blas;
  const char* fastest = fastest_core();
  const char* forced = std::getenv("OPENBLAS_CORETYPE");
  const bool is_forced = forced && *forced;

  void* library;
  {
    // OpenBLAS starts its threads while it is loaded, too. With one there are none to start, to
    // fight over the cores with our own, or to lose in a fork.
    const ScopedVariable one_thread("OPENBLAS_NUM_THREADS", "1");
    std::optional<ScopedVariable> core;
    if (!is_forced && fastest) core.emplace("OPENBLAS_CORETYPE", fastest);
    // Local: NumPy and SciPy bring copies of their own, with the same names inside.
    library = dlopen(vendored_path().c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      throw std::runtime_error(std::string("BLAS: cannot open the library beside fastmlp._core: ") +
                               dlerror() + "; reinstall fastmlp");
    }
    blas.origin = is_forced ? "OPENBLAS_CORETYPE in the environment"
                  : core    ? "the CPU's features"
                            : "OpenBLAS's own detection";
  }

  blas.sgemm = symbol<FortranGemm<float>>(library, "scipy_sgemm_");
  blas.dgemm = symbol<FortranGemm<double>>(library, "scipy_dgemm_");
  symbol<void (*)(int)>(library, "scipy_openblas_set_num_threads")(1);
  blas.library = "OpenBLAS";
  blas.version = second_word(symbol<const char* (*)()>(library, "scipy_openblas_get_config")());
  blas.core = symbol<const char* (*)()>(library, "scipy_openblas_get_corename")();
  if (fastest && instruction_set_of(blas.core) < instruction_set_of(fastest)) {
    blas.warning = "OpenBLAS runs its " + blas.core + " core, slower on this CPU than " + fastest;
    blas.warning += is_forced ? "; unset OPENBLAS_CORETYPE" : ", which it refused";
  }
  return blas;
}

#else  // FASTMLP_BLAS, linked

extern "C" {
void sgemm_(const char*, const char*, const int*, const int*, const int*, const float*,
            const float*, const int*, const float*, const int*, const float*, float*, const int*,
            std::size_t, std::size_t);
void dgemm_(const char*, const char*, const int*, const int*, const int*, const double*,
            const double*, const int*, const double*, const int*, const double*, double*,
            const int*, std::size_t, std::size_t);
// Weak: null unless the library is OpenBLAS.
__attribute__((weak)) void openblas_set_num_threads(int);
__attribute__((weak)) char* openblas_get_config();
__attribute__((weak)) char* openblas_get_corename();
}

Blas open() {
  Blas blas;
  blas.sgemm = sgemm_;
  blas.dgemm = dgemm_;
  blas.library = FASTMLP_BLAS;
  blas.origin = "the library's own detection";
  // The threads are ours. A NumPy that shares this very library gets one thread as well.
  if (openblas_set_num_threads) openblas_set_num_threads(1);
  if (openblas_get_config) blas.version = second_word(openblas_get_config());
  if (openblas_get_corename) blas.core = openblas_get_corename();
  return blas;
}

#endif

int to_int(std::int64_t size) {
  if (size < 0 || size > std::numeric_limits<int>::max()) {
    throw std::invalid_argument("matmul: a size of " + std::to_string(size) +
                                " is outside what the BLAS can take, 0 to " +
                                std::to_string(std::numeric_limits<int>::max()));
  }
  return static_cast<int>(size);
}

// The BLAS refuses a leading dimension of 0, which an empty matrix may have.
int to_leading(std::int64_t size) { return std::max(to_int(size), 1); }

}  // namespace

const Blas& blas() {
  static const Blas opened = open();
  return opened;
}

template <class T>
void gemm(T* c, std::int64_t ldc, const T* a, std::int64_t lda, bool transpose_a, const T* b,
          std::int64_t ldb, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
          T alpha, T beta) {
  if (m == 0 || n == 0) return;
  FortranGemm<T> product;
  if constexpr (std::is_same_v<T, float>) {
    product = blas().sgemm;
  } else {
    product = blas().dgemm;
  }
  // A row-major matrix is its transpose in columns, and c' = b' a': the operands change places.
  const int rows = to_int(n), columns = to_int(m), depth = to_int(k);
  const int first = to_leading(ldb), second = to_leading(lda), result = to_leading(ldc);
  product(transpose_b ? "T" : "N", transpose_a ? "T" : "N", &rows, &columns, &depth, &alpha, b,
          &first, a, &second, &beta, c, &result, 1, 1);
}

template void gemm(float*, std::int64_t, const float*, std::int64_t, bool, const float*,
                   std::int64_t, bool, std::int64_t, std::int64_t, std::int64_t, float, float);
template void gemm(double*, std::int64_t, const double*, std::int64_t, bool, const double*,
                   std::int64_t, bool, std::int64_t, std::int64_t, std::int64_t, double, double);

}  // namespace fastmlp::cpu
