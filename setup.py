from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "kupool" / "__init__.py").read_text("utf-8").splitlines()
    if line.startswith("__version__")
)

setup(
    name="kupool",
    version=version,
    description="Hands out jobs over long-lived connections, verifies every result, "
    "and counts each accepted one exactly once.",
    long_description=(here / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["kupool", "kupool.*"]),
    py_modules=["twisted.plugins.kupool_plugin"],
    package_data={
        "kupool.storage": ["sql/*/*.sql"],
        "kupool.web": ["dashboard/*", "dashboard/pages/*"],
        "kupool": ["py.typed"],
    },
    install_requires=[
        "twisted>=26.10",
        "zope.interface>=6.0",
        "msgspec>=0.21",
        "pyyaml>=6.0.1",
        "rich>=13.7",
        "pika>=1.3.2",
        "txpostgres>=1.7.0",
        "psycopg2-binary>=2.9.9",
        "argon2-cffi>=25.1",
        "joserfc>=1.8",
        "cramjam>=2.14",
    ],
    extras_require={
        "tls": ["pyopenssl>=24.0", "service-identity>=24.1"],
        "test": [
            # A WebSocket client that is not ours: the daemon itself does without.
            "autobahn>=24.4.2",
            # A client of the Centrifuge protocol that is not ours.
            "centrifuge-python>=0.7,<0.8",
            # The client of the server API of live channels; from 5.2 on it has all its methods.
            "cent>=5.2,<6",
            # Drives Chromium in tests/browser; the browser itself is the system's.
            "playwright>=1.65",
            "pytest>=8.0",
            "pytest-twisted>=1.14",
            "pytest-xdist>=3.8",
            "hypothesis>=6.100",
            "coverage>=7.4",
            "psutil>=5.9",
        ],
        "dev": [
            "ruff>=0.15",
            "mypy>=1.18",
            "mypy-zope>=1.0.14",
            "types-PyYAML",
            "types-psutil",
        ],
    },
    entry_points={"console_scripts": ["kupool = kupool.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Framework :: Twisted",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
