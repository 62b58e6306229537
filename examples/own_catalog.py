"""Your own catalog in ten minutes: look for problems, train, read the verdict, search.

For your shop, read your own tables: products = pandas.read_csv("products.csv"), pairs = pandas.read_csv("pairs.csv").
"""

import shop

import gcl

products = shop.products()
pairs = shop.pairs(products)
small = {
    "model": "tiny",
    "trainer": "cpu",
    "train.batch_size": 32,
    "train.workers": 0,
}  # for real: model="lite", or a larger one

found = gcl.doctor(products=products, pairs=pairs, **small)
print(len(found.problems), "problems;", found.report)

run = gcl.train(products=products, pairs=pairs, run_dir="runs/first", **small, **{"train.max_steps": 20})
print(run.verdict)
print(run.report)

index = run.model().index(products, id="product_id")
print(index.search("red boots", k=5))
