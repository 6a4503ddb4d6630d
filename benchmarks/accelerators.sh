#!/usr/bin/env bash
# Builds mmcv and spatial-correlation-sampler from source, runs the tests that compare them with PyTorch, and times them.
#
#   benchmarks/accelerators.sh [FOLDER]      FOLDER keeps what was built, so that it may be stopped and started again;
#                                            without it all is built in a temporary folder, which is removed at the end
#
# Nothing is installed outside that folder. PYTHON names the interpreter (3.11), MAX_JOBS how many files are compiled at
# a time. Where torch or the machine has no CUDA both are built for the CPU; the sampler's sources are changed for that.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -n ${1:-} ]]; then folder=$1; else folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT; fi
mkdir -p "$folder/sources"
cd "$folder"
folder=$PWD
export MAX_JOBS=${MAX_JOBS:-$(nproc)} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} PIP_DISABLE_PIP_VERSION_CHECK=1
say() { printf '\n== %s: %s\n' "$(date +%H:%M:%S)" "$*"; }
python() { (cd / && "$folder/env/bin/python" "$@"); }
has() { python -c "import $1" 2>/dev/null; }

say "environment in $folder/env"
[[ -x env/bin/python ]] || "${PYTHON:-python3}" -m venv env
# mmcv's setup.py needs pkg_resources, which left setuptools with version 82; opencv without a display; what mmengine needs
env/bin/pip install --quiet torch==2.13.0 "setuptools<82" wheel ninja numpy psutil pytest opencv-python-headless \
  addict matplotlib packaging pillow pyyaml rich termcolor yapf
env/bin/pip install --quiet --no-deps mmengine

# pip asks an sdist for its metadata before it keeps it, for which setup.py of the sampler wants CUDA: a stand-in for torch
mkdir -p stand_in/torch/utils
touch stand_in/torch/__init__.py stand_in/torch/utils/__init__.py
cat >stand_in/torch/utils/cpp_extension.py <<'PY'
from setuptools import Extension
from setuptools.command.build_ext import build_ext as BuildExtension


def CUDAExtension(name, sources, **_):
    return Extension(name, sources)


CppExtension = CUDAExtension
PY
unpacked() { # NAME VERSION: the folder of its unpacked sdist
  local name=${1//-/_}-$2
  if [[ ! -d sources/$name ]]; then
    PYTHONPATH=$folder/stand_in env/bin/pip download --quiet --no-deps --no-binary :all: --no-build-isolation \
      --dest sources "$1==$2" >&2 && tar -xzf "sources/$name.tar.gz" -C sources
  fi
  echo "./sources/$name"
}

if ! has spatial_correlation_sampler; then
  say "spatial-correlation-sampler 0.5.0"
  sampler=$(unpacked spatial-correlation-sampler 0.5.0)
  sed -i 's/-std=c++17/-std=c++20/' "$sampler/setup.py"
  if ! python -c "from torch.utils.cpp_extension import CUDA_HOME; assert CUDA_HOME" 2>/dev/null; then # it includes a CUDA header in any case, which its own CPU_ONLY forgets
    sed -i 's/^CPU_ONLY = False/CPU_ONLY = True/' "$sampler/setup.py"
    sed -i 's|^#include <c10/cuda/CUDAGuard.h>|#ifdef USE_CUDA\n&\n#endif|' \
      "$sampler/Correlation_Module/correlation_sampler.cpp"
  fi
  env/bin/pip install --quiet --no-build-isolation --no-deps "$sampler" || echo "it does not build here"
fi

if ! has mmcv.ops; then
  say "mmcv 2.2.0, $MAX_JOBS files at a time: 77 files, many minutes"
  MMCV_WITH_OPS=1 env/bin/pip install --no-build-isolation --no-deps "$(unpacked mmcv 2.2.0)" || echo "it does not build here"
fi

say "the same forward and backward"
export PYTHONPATH=$root/src
env/bin/python -m pytest --noconftest -p no:cacheprovider -o filterwarnings=default -rs -q "$root/tests/test_accelerators.py"
say "timings"
env/bin/python "$root/benchmarks/accelerators.py"
