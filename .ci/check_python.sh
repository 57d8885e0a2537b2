# Is there a Python that can make an environment? If not, say exactly what to do.
# Arguments: the interpreter, the environment's folder, the environment's python, the make target.
python=$1
venv=$2
venv_python=$3
target=${4:-test}

newer() { # the first interpreter on PATH that would do
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

remedy_python() {
    if other=$(newer); then
        echo "  A newer one is installed:  make $target PYTHON=$other"
    elif [ "$(uname -s)" = Darwin ]; then
        echo "  Remedy:  brew install python@3.13    then    make $target PYTHON=python3.13"
    elif command -v apt-get >/dev/null 2>&1; then
        echo "  Remedy:  sudo apt update && sudo apt install python3 python3-venv"
        echo "  (If that still gives an old one:  sudo apt install python3.11 python3.11-venv  and  make $target PYTHON=python3.11)"
    elif command -v dnf >/dev/null 2>&1; then
        echo "  Remedy:  sudo dnf install python3.12    then    make $target PYTHON=python3.12"
    else
        echo "  Remedy:  install Python 3.11 or newer (https://www.python.org/downloads/), then  make $target PYTHON=..."
    fi
}

if ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    echo "embrief needs Python 3.11 or newer, and '$python' does not run here."
    remedy_python
    exit 1
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "embrief needs Python 3.11 or newer; '$python' is Python $version."
    remedy_python
    exit 1
fi

if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    echo "'$python' (Python $version) cannot make virtual environments: its venv and ensurepip modules are missing."
    if command -v apt-get >/dev/null 2>&1; then
        case $python in
            python3 | */python3) package=python3-venv ;;
            *) package=python$version-venv ;;
        esac
        echo "  Remedy:  sudo apt install $package"
    else
        echo "  Remedy:  install your system's package for Python's venv module (often python3-venv or python3-pip)"
    fi
    exit 1
fi

if [ -f "$venv/.done-venv" ] && ! "$venv_python" -c 'import pip' >/dev/null 2>&1; then
    echo "The environment $venv does not run any more (was its Python removed, or the folder moved?)."
    echo "  Remedy:  rm -rf $venv    then    make $target"
    exit 1
fi
