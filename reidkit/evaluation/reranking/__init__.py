"""Second looks at a ranking: k-reciprocal neighbours, Jaccard distances, query expansion."""

from reidkit.evaluation.reranking.k_reciprocal import Reranked, jaccard_distance, rerank
from reidkit.evaluation.reranking.query_expansion import augment_database, expand_query

__all__ = ["rerank", "Reranked", "jaccard_distance", "expand_query", "augment_database"]
