"""Relative paths of a catalog start at the folder of a YAML of one's own, or where they are typed."""

import shutil
from pathlib import Path

import pytest

from gcl.cli import main
from gcl.config import locations
from gcl.config.compose import Overrides, catalog_of, load_config, save_config
from gcl.data.prepare.prepare import prepare
from gcl.run.folder import config_of
from helpers.small_catalog import catalog, pairs, products, write_table

YAML = """\
name: mine
products: ../../tables/products.csv
document_id: product_id
query: {query: {column: title}}
document: {kind: {}}
tasks: {judged: {queries: q.csv, qrels: r.csv, corpus: c.csv}}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with conf/data/mine.yaml and tables/products.csv, from another folder than which it is used."""
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(YAML)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "products.csv").write_text("product_id,title,kind\n1,red boot,boot\n2,blue boot,boot\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    locations._say_elsewhere.cache_clear()
    return tmp_path


def composed(place, *settings):
    return Overrides(["data=mine", *settings], str(place / "conf")).config()


def test_paths_of_a_yaml_of_ones_own_start_at_its_folder(place, monkeypatch):
    own = place / "conf" / "data"
    data = composed(place).data
    assert data.root == str(own) and data.products == "../../tables/products.csv"
    assert catalog_of(str(own / "mine.yaml")) == data
    monkeypatch.chdir(place / "tables")
    assert composed(place).data == data


def test_what_is_typed_starts_at_the_working_folder(place):
    (place / "elsewhere" / "other.csv").write_text("")
    typed = composed(place, "data.products=other.csv", "data.tasks.judged.queries=a.csv").data
    here = place / "elsewhere"
    assert Path(typed.products).name == "other.csv"
    assert (here / "other.csv").samefile(Path(typed.root) / typed.products)
    assert (typed.tasks["judged"].queries, typed.tasks["judged"].corpus) == (str(here / "a.csv"), "c.csv")
    assert composed(place, "data.root=dt=1").data.root == "dt=1", "as it was typed"
    assert composed(place, "data.products=/x/y.csv").data.products == "/x/y.csv"
    assert composed(place, "data.products=s3://shop/y.csv").data.products == "s3://shop/y.csv"


def test_a_yaml_with_a_root_names_its_tables_from_there(place):
    own = place / "conf" / "data"
    (own / "mine.yaml").write_text(YAML.replace("name: mine", "name: mine\nroot: shop"))
    (own / "shop").mkdir()
    data = composed(place).data
    assert data.root == str(own / "shop") and data.tasks["judged"].queries == "q.csv"


def test_a_table_in_the_working_folder_is_taken_and_told(place, monkeypatch, caplog):
    (place / "conf" / "data" / "mine.yaml").write_text(YAML.replace("../../tables/", ""))
    monkeypatch.chdir(place / "tables")
    data = composed(place).data
    assert (place / "tables" / "products.csv").samefile(Path(data.root) / data.products)
    (said,) = caplog.messages
    assert "mine.yaml names products.csv" in said and "Write ../../tables/products.csv" in said
    composed(place)
    assert len(caplog.messages) == 1, "once for a process"


def test_a_mix_takes_each_catalog_from_where_its_yaml_is(place, monkeypatch):
    other = place / "conf" / "data" / "other.yaml"
    other.write_text(YAML.replace("name: mine", "name: other"))
    (place / "conf" / "data" / "both.yaml").write_text("name: both\nmix: {mine: 1, other: 2}\n")
    settings = ["data=both", "data.catalogs.other.products=here.csv"]
    data = Overrides(settings, str(place / "conf")).config().data
    assert data.catalogs["mine"].products == "../../tables/products.csv"
    assert data.catalogs["other"].products == str(place / "elsewhere" / "here.csv")
    assert {catalog.root for catalog in data.catalogs.values()} == {str(place / "conf" / "data")}


def test_paths_of_gcls_own_yamls_start_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Overrides(["data=fashion"]).config().data.root == str(tmp_path / "fashion")
    assert Overrides(["data=demo"]).config().data.root is None


def test_a_sweep_starts_where_a_run_does(place, capsys):
    with pytest.raises(SystemExit):
        main(["prepare", "--multirun", "--config-dir", str(place / "conf"), "data=mine", "seed=0"])
    assert str(place / "conf" / "data" / "q.csv") in capsys.readouterr().err


def test_a_runs_config_names_its_tables_from_anywhere(place, monkeypatch):
    run = place / "run"
    run.mkdir()
    save_config(composed(place), run / "config.yaml")
    (run / "checkpoints").mkdir()
    monkeypatch.chdir(place)
    assert load_config(run / "config.yaml").data.root == str(place / "conf" / "data")
    save_config(composed(place, "data.root=elsewhere/"), run / "config.yaml")
    saved = load_config(run / "config.yaml").data
    assert (saved.root, saved.products) == (str(place / "elsewhere"), "../../tables/products.csv")
    (place / "new.csv").write_text("")
    with_other = config_of(Overrides([f"run={run}", "data.products=new.csv"])).data.products
    assert with_other == str(place / "new.csv")


def test_the_fingerprint_does_not_depend_on_where_a_catalog_lies(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    write_table(tmp_path / "one" / "products.csv", products(20))
    write_table(tmp_path / "one" / "pairs.csv", pairs(10, 20))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    monkeypatch.chdir(tmp_path / "one")
    tables = {"products": "products.csv", "pairs": "pairs.csv", "score": "score"}
    folders = {
        prepare(catalog(root, **tables), tmp_path / "prepared", progress=False)
        for root in (None, tmp_path / "one", tmp_path / "two")
    }
    assert len(folders) == 1
