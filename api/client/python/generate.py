"""Makes batchreset/contract.py: the types of api/openapi.yaml that the client needs.

python3 generate.py > batchreset/contract.py, with PyYAML (Debian: python3-yaml).
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, List

import yaml

Schema = Dict[str, Any]

CONTRACT = Path(__file__).resolve().parents[2] / "openapi.yaml"
# What a client sends and gets. What these refer to comes with them.
ROOTS = ["Batch", "DryRun", "Job", "RunRequest", "Run", "RunResult", "RunVerdict", "Identity"]
# There are methods of their own for it.
OMITTED = {"dry_run"}
PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"}

HEADER = '''"""The types of the contract. Made from api/openapi.yaml by generate.py: do not edit."""

from __future__ import annotations

from typing import Dict, List, Literal, TypedDict, Union
'''


class Generator:
    """Turns schemas into aliases and TypedDicts, each after those that it needs."""

    def __init__(self, schemas: Dict[str, Schema]) -> None:
        self.schemas = schemas
        self.done: set[str] = set()
        self.code: List[str] = []

    def add(self, name: str) -> None:
        """Adds a schema of the contract, once."""
        if name not in self.done:
            self.done.add(name)
            self.define(name, self.schemas[name])

    def define(self, name: str, schema: Schema) -> None:
        """Adds a schema under a name."""
        if "properties" in schema:
            self.record(name, schema)
            return
        alias = f"{name} = {self.type(name, schema)}"
        self.code.append(alias + "".join(f"\n{line}" for line in docstring(schema, "")))

    def record(self, name: str, schema: Schema) -> None:
        """Adds a TypedDict. One that has optional fields, too, inherits those that it must have."""
        required = set(schema.get("required", []))
        fields = {key: value for key, value in schema["properties"].items() if key not in OMITTED}
        must = self.fields(name, {key: value for key, value in fields.items() if key in required})
        may = self.fields(name, {key: value for key, value in fields.items() if key not in required})
        text = docstring(schema, "    ")
        if must and may:
            self.code.append("\n".join([f"class _{name}(TypedDict):", *must]))
            self.code.append("\n".join([f"class {name}(_{name}, total=False):", *text, *may]))
        else:
            total = ", total=False" if may else ""
            self.code.append("\n".join([f"class {name}(TypedDict{total}):", *text, *(must or may)]))

    def fields(self, owner: str, properties: Dict[str, Schema]) -> List[str]:
        """Gives the lines of the fields of a TypedDict."""
        lines: List[str] = []
        for key, schema in properties.items():
            kind = self.type(owner + key.title().replace("_", ""), schema)
            lines += [f"    {key}: {kind}", *docstring(schema, "    ")]
        return lines

    def type(self, name: str, schema: Schema) -> str:
        """Gives the type of a schema. One that needs a name gets this one."""
        if "$ref" in schema:
            target = schema["$ref"].rsplit("/", 1)[1]
            self.add(target)
            return target
        if "const" in schema:
            return f"Literal[{schema['const']!r}]"
        if "enum" in schema:
            return f"Literal[{', '.join(map(repr, schema['enum']))}]"
        if "oneOf" in schema:
            return f"Union[{', '.join(self.type(name, one) for one in schema['oneOf'])}]"
        if schema["type"] == "array":
            return f"List[{self.type(name, schema['items'])}]"
        if schema["type"] == "object":
            if "properties" not in schema:
                return f"Dict[str, {self.type(name, schema['additionalProperties'])}]"
            self.define(name, schema)
            return name
        return PLAIN[schema["type"]]


def docstring(schema: Schema, indent: str) -> List[str]:
    """Gives the lines of a description, if there is one."""
    text = " ".join(schema.get("description", "").split())
    if not text:
        return []
    text = f'"""{text}"""' if not text.endswith('"') else f'"""{text} """'
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def main() -> None:
    """Writes the module to standard output."""
    generator = Generator(yaml.safe_load(CONTRACT.read_text("utf-8"))["components"]["schemas"])
    for root in ROOTS:
        generator.add(root)
    sys.stdout.write("\n\n".join([HEADER, *(f"{code}\n" for code in generator.code)]))


if __name__ == "__main__":
    main()
