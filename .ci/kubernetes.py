"""Whether the resources in deploy/*.yaml are what Kubernetes and SpinKube take, and fit each other and spin.toml."""

import json
import pathlib
import sys
import tomllib

import jsonschema
import kubernetes_validate
import yaml

PROJECT = pathlib.Path(__file__).parent.parent
KUBERNETES = "1.31"
OPERATOR = json.loads((PROJECT / ".ci/spinkube.schema.json").read_text())
SPIN = tomllib.loads((PROJECT / "spin.toml").read_text())

failures = []


def expect(truth, what):
    if not truth:
        failures.append(what)


def check(path, resource):
    kind = resource["kind"]
    try:
        if resource["apiVersion"].startswith("core.spinkube.dev/"):
            jsonschema.Draft202012Validator(OPERATOR | {"$ref": f"#/$defs/{kind}"}).validate(resource)
        else:
            kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        failures.append(f"{path}: {kind}: {'.'.join(map(str, error.path))}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError as error:
        failures.append(f"{path}: {error.message}")


resources = {}
for path in sorted((PROJECT / "deploy").glob("*.yaml")):
    for resource in yaml.safe_load_all(path.read_text()):
        check(path.name, resource)
        key = resource["kind"], resource["metadata"]["name"]
        expect(key not in resources, f"{path.name}: {key} is there twice")
        resources[key] = resource
        print("checked", path.name, *key)

if failures:
    sys.exit("\n".join(failures))

app = resources["SpinApp", "loopless"]["spec"]
expect(("SpinAppExecutor", app["executor"]) in resources, f"there is no executor {app['executor']}")
version = SPIN["application"]["version"]
expect(app["image"].endswith(f":{version}"), f"the image is not of version {version}")
for variable in app["variables"]:
    expect(variable["name"] in SPIN["variables"], f"spin.toml has no variable {variable['name']}")
stores = {store["name"]: store["type"] for store in app["runtimeConfig"]["keyValueStores"]}
expect(stores == {"default": "redis"}, f"the stores are {stores}")

deployment = resources["Deployment", "valkey"]["spec"]
valkey = deployment["template"]
expect(
    deployment["selector"]["matchLabels"].items() <= valkey["metadata"]["labels"].items(),
    "the Deployment valkey selects none of its pods",
)
service = resources["Service", "valkey"]["spec"]
expect(
    service["selector"].items() <= valkey["metadata"]["labels"].items(),
    "the Service valkey selects none of its pods",
)
ports = {port["containerPort"] for port in valkey["spec"]["containers"][0]["ports"]}
expect({port["port"] for port in service["ports"]} == ports, "the Service valkey has another port than its pods")

# The guide makes the Secret, with the keys that the application reads.
guide = (PROJECT / "src/guide/deployment.md").read_text()
values = app["variables"] + app["runtimeConfig"]["keyValueStores"][0]["options"]
for secret in (value["valueFrom"]["secretKeyRef"] for value in values if "valueFrom" in value):
    expect(f"create secret generic {secret['name']} " in guide, f"The guide makes no Secret {secret['name']}")
    expect(f"--from-literal={secret['key']}=" in guide, f"The guide's Secret has no key {secret['key']}")

if failures:
    sys.exit("\n".join(failures))
