import json

from serving.answers.model_answers import find_card
from tests.serving_book import CATALOGUE


def test_the_vendor_reads_all_features_and_a_partner_those_that_are_shared(client, vendor, partner):
    everything, shared = (client.get("/v1/features", headers=headers).json() for headers in (vendor, partner))
    assert {feature["name"] for feature in everything["features"]} == set(CATALOGUE.names)
    assert {feature["name"] for feature in shared["features"]} == {one.name for one in CATALOGUE if one.sensitivity == "shared"}
    assert (everything["withheld"], shared["withheld"]) == (False, True)
    assert {feature["sensitivity"] for feature in shared["features"]} == {None}
    first = next(feature for feature in everything["features"] if feature["name"] == "active_users_28d")
    assert (first["window_days"], first["unit"], first["used_by"]) == (28, "users", ["churn", "expansion"])


def test_models_are_those_of_the_score_set(client, vendor, partner):
    models = client.get("/v1/models", headers=vendor).json()["models"]
    served = client.app.state.desk.live.current().manifest.models
    assert {model["target"]: model["package"] for model in models} == {target: model.package_hash for target, model in served.items()}
    assert {model["package"] for model in client.get("/v1/models", headers=partner).json()["models"]} == {None}


def test_a_card_is_that_of_the_model_that_made_the_scores(client, vendor, partner):
    workspace = client.app.state.desk.workspace
    served = client.app.state.desk.live.current().manifest.models["churn"].package_hash
    for run, package in (("20250101T000000-aaaa", served), ("20250601T000000-bbbb", "f" * 64)):
        folder = workspace.training / run
        folder.mkdir(parents=True)
        part = {"status": "trained", "verdict": "churn: fine.", "package_hash": package, "notes": [f"Made in {run}."]}
        (folder / "report.json").write_text(json.dumps({"run": run, "targets": {"churn": part}}))
    (workspace.training / "20250701T000000-cccc").mkdir()
    (workspace.training / "20250701T000000-cccc" / "report.json").write_text("{")  # a training that is being written
    card = client.get("/v1/models/churn/card", headers=vendor)
    assert card.status_code == 200
    assert card.headers["content-type"].startswith("text/markdown")
    assert card.text == find_card(workspace.training, "churn", served) and "20250101" in card.text
    assert client.get("/v1/models/expansion/card", headers=vendor).status_code == 404
    assert client.get("/v1/models/churn/card", headers=partner).status_code == 403
    assert client.get("/v1/models/luck/card", headers=vendor).status_code == 422
