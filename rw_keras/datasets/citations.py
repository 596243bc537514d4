"""How to cite the sets."""

OXFORD = r"""@inproceedings{philbin2007object,
  title = {Object retrieval with large vocabularies and fast spatial matching},
  author = {Philbin, James and Chum, Ond{\v{r}}ej and Isard, Michael and Sivic, Josef and Zisserman, Andrew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2007}
}"""
PARIS = r"""@inproceedings{philbin2008lost,
  title = {Lost in quantization: Improving particular object retrieval in large scale image databases},
  author = {Philbin, James and Chum, Ond{\v{r}}ej and Isard, Michael and Sivic, Josef and Zisserman, Andrew},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2008}
}"""
REVISITED = r"""@inproceedings{radenovic2018revisiting,
  title = {Revisiting {Oxford} and {Paris}: Large-scale image retrieval benchmarking},
  author = {Radenovi{\'c}, Filip and Iscen, Ahmet and Tolias, Giorgos and Avrithis, Yannis and Chum, Ond{\v{r}}ej},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2018}
}"""
